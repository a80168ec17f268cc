/**
 * The files of a latent cache: latents.json describes how the latents were made, and safetensors files with
 * equally many pictures hold them. Each file names its latents.json by a hash, so that files of an earlier
 * cache are never used.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { FormatError, PatchwiseError } from "../../engine/errors.ts";
import { ndarray, sizeOf, viewOf } from "../../engine/arrays/ndarray.ts";
import { writeJson } from "../../weights/sources/atomic-node.ts";
import { closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { TensorEntry } from "../../weights/safetensors/header.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { byCodeUnits } from "../formats/columns.ts";
import type { DataSet, Example } from "../dataset.ts";
import { latentBytes, storedChannels } from "./latents.ts";

const count = z.int().min(1);

const manifestSchema = z.strictObject({
  format: z.literal("patchwise-latents"),
  version: z.literal(1),
  /** The latents are reused only if all of this is the same. */
  made: z.strictObject({
    /** The config of the data set without `flip`. */
    data: z.record(z.string(), z.unknown()),
    files: z.strictObject({ files: z.int().min(0), hash: z.string() }),
    picture: z.tuple([count, count, count]),
    /** SHA-256 of the autoencoder. */
    autoencoder: z.string(),
    mirrored: z.boolean(),
    form: z.strictObject({
      channels: count,
      height: count,
      width: count,
      parts: z.enum(["moments", "mean", "tokens"]),
      precision: z.enum(["float16", "float32"]),
    }),
  }),
  /** Name of the data set. */
  name: z.string(),
  count,
  classes: z.array(z.string()).optional(),
  captioned: z.boolean(),
});

export type LatentManifest = z.output<typeof manifestSchema>;

const exampleSchema = z.union([
  z.strictObject({ label: z.int().min(0).optional(), captions: z.array(z.string()).optional() }),
  z.strictObject({ name: z.string(), unreadable: z.string() }),
]);

/** Labels and captions of a picture, or why it has no latents. */
export type LatentExample = z.output<typeof exampleSchema>;

const manifestFile = "latents.json";
const tensor = "latents";
const ours = /^latents-\d{5}-of-\d{5}\.safetensors$/;
const unfinished = /^\.latents(?:-\d{5}-of-\d{5}\.safetensors|\.json)\.[0-9a-f]{12}\.tmp$/;

// Training opens all files of a folder at once, even for a million pictures, and each file is made in memory.
const FILES = 512;
const SMALLEST = 128;
const FILE_BYTES = 2 ** 27;

/** A file of the cache: `count` pictures from index `first` on. */
export interface LatentFile {
  readonly path: string;
  readonly first: number;
  readonly count: number;
}

/** Lists the files of a complete cache. An interruption loses at most one of them. */
export function latentFiles(folder: string, { count: all, made }: LatentManifest): LatentFile[] {
  const bytes = versionsOf(made) * latentBytes(made.form);
  const each = Math.max(
    1,
    Math.min(Math.floor(FILE_BYTES / bytes), Math.max(SMALLEST, Math.ceil(all / FILES))),
  );
  const files = Math.ceil(all / each);
  const digits = (n: number) => String(n).padStart(5, "0");
  return Array.from({ length: files }, (_, i) => ({
    path: join(folder, `latents-${digits(i)}-of-${digits(files)}.safetensors`),
    first: i * each,
    count: Math.min(each, all - i * each),
  }));
}

/**
 * Reads latents.json; undefined if there is none, and "older" if it is of another version.
 *
 * @throws FormatError if it is damaged
 */
export async function readManifest(folder: string): Promise<LatentManifest | "older" | undefined> {
  const path = join(folder, manifestFile);
  let content: unknown;
  try {
    content = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    const reason = cause instanceof SyntaxError ? cause.message : describeSystemError(cause);
    throw new FormatError(`Cannot read ${path}: ${reason}; choose another folder.`, { cause });
  }
  const result = manifestSchema.safeParse(content);
  if (result.success) return result.data;
  const known = z.looseObject({ format: z.literal("patchwise-latents"), version: z.int() });
  const other = known.safeParse(content);
  if (other.success && other.data.version !== 1) return "older";
  const { path: field, message } = result.error.issues[0]!;
  throw new FormatError(
    `${path} is damaged (${field.join(".") || "the whole"}: ${message}); remove its folder to compute the latents again.`,
  );
}

/** Starts a new cache in the folder, which invalidates the files of an earlier one. */
export async function writeManifest(folder: string, manifest: LatentManifest): Promise<void> {
  await writeJson(join(folder, manifestFile), manifest);
}

/** Removes files of other caches and files whose writing was interrupted. */
export async function removeOthers(folder: string, manifest: LatentManifest): Promise<void> {
  const wanted = new Set(latentFiles(folder, manifest).map(({ path }) => path));
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const left = unfinished.test(name) || (ours.test(name) && !wanted.has(path));
    if (left) await rm(path, { force: true });
  }
}

/** Writes a file atomically. `latents` holds the versions of each picture, one picture after another. */
export async function writeLatentFile(
  { path }: LatentFile,
  manifest: LatentManifest,
  latents: Uint8Array<ArrayBuffer>,
  examples: readonly LatentExample[],
): Promise<void> {
  const { form } = manifest.made;
  const shape = fileShape(manifest, examples.length);
  const values = viewOf(form.precision, latents.buffer, 0, sizeOf(shape));
  const array = ndarray(form.precision, shape, values);
  await writeSafetensors(
    path,
    [[tensor, array]],
    [
      ["made", identity(manifest)],
      ["examples", JSON.stringify(examples)],
    ],
  );
}

interface OpenLatentFile {
  readonly file: Weights;
  readonly entry: TensorEntry;
  readonly examples: readonly LatentExample[];
}

/**
 * Opens a file of the cache; undefined if it belongs to another cache.
 *
 * @throws FormatError if it is damaged; PatchwiseError if it does not exist
 */
export async function openLatentFile(
  { path, count: pictures }: LatentFile,
  manifest: LatentManifest,
): Promise<OpenLatentFile | undefined> {
  const damaged = (reason: string, cause?: unknown) =>
    new FormatError(
      `The latents in ${path} are damaged (${reason}); remove the file to compute them again.`,
      { cause },
    );
  const file = await openSafetensorsFile(path).catch((error: unknown) => {
    throw error instanceof FormatError ? damaged(error.message, error) : error;
  });
  return closingOnFailure([file], async () => {
    if (file.metadata.get("made") !== identity(manifest)) {
      await file.close();
      return undefined;
    }
    const entry = file.entries.get(tensor);
    const shape = fileShape(manifest, pictures);
    if (
      entry?.dtype !== manifest.made.form.precision ||
      entry.shape.join() !== shape.join() ||
      file.entries.size > 1
    ) {
      throw damaged(`they should be ${manifest.made.form.precision} [${shape.join(", ")}]`);
    }
    return { file, entry, examples: readExamples(file, pictures, damaged) };
  });
}

function readExamples(
  file: Weights,
  pictures: number,
  damaged: (reason: string, cause?: unknown) => FormatError,
): readonly LatentExample[] {
  let content: unknown;
  try {
    content = JSON.parse(file.metadata.get("examples") ?? "");
  } catch (cause) {
    throw damaged("the list of pictures is missing", cause);
  }
  const result = z.array(exampleSchema).length(pictures).safeParse(content);
  if (result.success) return result.data;
  throw damaged("the list of pictures is incomplete");
}

/**
 * Opens a complete cache as a data set whose examples hold the bytes of latents instead of pixels.
 *
 * @throws FormatError if it is damaged; PatchwiseError if it is incomplete
 */
export async function openLatentFolder(folder: string): Promise<DataSet> {
  const manifest = await readManifest(folder);
  if (manifest === undefined || manifest === "older") {
    throw new PatchwiseError(`${folder} has no latents; restart the training.`);
  }
  return closingOnFailure([] as Weights[], async (open) => {
    const opened: OpenLatentFile[] = [];
    const files = latentFiles(folder, manifest);
    for (const each of files) {
      const file = await openLatentFile(each, manifest);
      if (!file)
        throw new PatchwiseError(
          `${each.path} belongs to another latent cache; remove the folder.`,
        );
      opened.push(file);
      open.push(file.file);
    }
    const bytes = versionsOf(manifest.made) * latentBytes(manifest.made.form);
    const at = (index: number) => {
      const each = files[0]!.count;
      const { entry, examples } = opened[Math.floor(index / each)]!;
      const row = index % each;
      return { example: examples[row]!, source: entry.source, offset: entry.offset + row * bytes };
    };
    const { name, count: pictures, classes, captioned } = manifest;
    return {
      name,
      count: pictures,
      classes,
      captioned,
      nameOf: (index) => {
        const { example } = at(index);
        return "unreadable" in example ? example.name : `picture ${index} of ${name}`;
      },
      example: async (index): Promise<Example> => {
        const { example, source, offset } = at(index);
        if ("unreadable" in example) throw new FormatError(example.unreadable);
        const { label, captions = [] } = example;
        return { pixels: await source.read(offset, bytes), label, captions };
      },
      close: () => closeAll(open),
    };
  });
}

function fileShape({ made: { mirrored, form } }: LatentManifest, pictures: number): number[] {
  return [pictures, mirrored ? 2 : 1, storedChannels(form), form.height, form.width];
}

function versionsOf({ mirrored }: LatentManifest["made"]): number {
  return mirrored ? 2 : 1;
}

function identity({ made }: LatentManifest): string {
  return createHash("sha256").update(canonical(made)).digest("hex");
}

/** JSON with sorted keys. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => byCodeUnits(a, b)))
      : inner,
  );
}
