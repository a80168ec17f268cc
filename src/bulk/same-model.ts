/** The model that drew the pictures of a folder, so that no other one adds to them. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { tryJson } from "../engine/bytes.ts";
import { quote, UsageError } from "../engine/errors.ts";
import { writeJson } from "../weights/sources/atomic-node.ts";
import { ifThere } from "../weights/sources/system-error-node.ts";

const schema = z.object({
  /** Its name. */
  model: z.string(),
  /** The hash of its weights and config. */
  digest: z.string(),
  /** The name of the folder's job on queues. */
  job: z.string(),
});

export type UsedModel = Pick<z.output<typeof schema>, "model" | "digest">;

const recordFile = "draw-many.json";

/**
 * Keeps the model's name and digest in a folder, or compares them with those that are kept there.
 *
 * @returns the name of the folder's job, which stays the same
 * @throws UsageError if another model, or one with other weights, has drawn the pictures in the folder
 */
export async function keepModel(folder: string, used: UsedModel): Promise<string> {
  const path = join(folder, recordFile);
  const text = await ifThere(`read ${path}`, readFile(path, "utf8"), undefined);
  const before = text === undefined ? undefined : schema.safeParse(tryJson(text)).data;
  if (!before) {
    const job = randomBytes(8).toString("hex");
    await writeJson(path, { ...used, job });
    return job;
  }
  if (before.digest === used.digest) return before.job;
  const same = before.model === used.model;
  throw new UsageError(
    `The pictures in ${folder} were drawn by ${quote(before.model)}${same ? " with other weights or another config" : `, not by ${quote(used.model)}`}; choose another folder with --out, or empty this one.`,
  );
}
