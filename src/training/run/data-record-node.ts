/** What a training remembers of its data, so that one that resumes learns from the same pictures. */
import { join } from "node:path";
import * as z from "zod";
import type { DataConfig } from "../../data/config.ts";
import { fingerprint } from "../../data/loading/fingerprint-node.ts";
import { counted, firstOf, quote, UsageError } from "../../engine/errors.ts";
import { nameFinder } from "../../engine/names.ts";
import { writeJson } from "../../weights/sources/atomic-node.ts";
import { exists, readJson } from "../../weights/sources/folder-node.ts";
import type { DataSource } from "../loop.ts";

const recordSchema = z.object({
  pictures: z.int(),
  classes: z.array(z.string()).optional(),
  /** SHA-256 of names, labels and captions. */
  described: z.string().optional(),
  /** SHA-256 of the files' names and sizes. */
  files: z.string(),
});

type DataRecord = z.output<typeof recordSchema>;

const recordFile = "data.json";

export interface DataCheck {
  readonly record: DataRecord;
  /** Writes the record of the data. */
  write(): Promise<void>;
}

/**
 * Compares the data with the record in a training's folder, if there is one.
 *
 * @param accepted whether other pictures and captions are meant
 * @throws UsageError that says what has changed
 */
export async function checkData(
  folder: string,
  config: DataConfig,
  { info, survey }: Pick<DataSource, "info" | "survey">,
  { resume, accepted }: { readonly resume: boolean; readonly accepted: boolean },
): Promise<DataCheck> {
  const path = join(folder, recordFile);
  const record: DataRecord = {
    pictures: info.count,
    ...(info.classes && { classes: [...info.classes] }),
    ...(survey?.hash !== undefined && { described: survey.hash }),
    files: (await fingerprint(config, "sizes")).hash,
  };
  // Trainings of older versions have no record.
  const before =
    resume && (await exists(path)) ? recordSchema.safeParse(await readJson(path)).data : undefined;
  const classes = before ? changedClasses(before, record) : [];
  const others = before ? changes(before, record) : [];
  if (classes.length > 0 || (others.length > 0 && !accepted)) {
    const way = classes.length > 0 ? "" : ", or accept it with --changed-data";
    throw new UsageError(
      `The data of the training in ${folder} has changed (${[...classes, ...others].join("; ")}); restore it, start a new training in another folder with training.from: ${folder}${way}.`,
    );
  }
  return { record, write: () => writeJson(path, record) };
}

function changedClasses({ classes: old = [] }: DataRecord, { classes = [] }: DataRecord): string[] {
  const [inOld, inNew] = [nameFinder(old), nameFinder(classes)];
  const gone = old.filter((name) => inNew(name) === undefined);
  const added = classes.filter((name) => inOld(name) === undefined);
  const said = (names: readonly string[], how: string) =>
    names.length === 0
      ? []
      : [
          `${names.length === 1 ? "the class" : "the classes"} ${firstOf(names.map(quote), 5)} ${names.length === 1 ? "is" : "are"} ${how}`,
        ];
  return [
    ...said(gone, "missing"),
    ...said(added, "new"),
    ...(gone.length + added.length === 0 && old.join("\n") !== classes.join("\n")
      ? ["the order of the classes is another"]
      : []),
  ];
}

function changes(old: DataRecord, now: DataRecord): string[] {
  if (old.pictures !== now.pictures)
    return [
      `${counted(old.pictures, "picture")} ${old.pictures === 1 ? "is" : "are"} ${now.pictures} now`,
    ];
  if (old.described !== now.described) return ["names, labels or captions are others"];
  return old.files === now.files ? [] : ["files were added, removed or replaced"];
}
