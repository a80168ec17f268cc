/** Folders and pictures for tests of data sets. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import sharp from "sharp";
import { onTestFinished } from "vitest";
import { type DataConfig, dataSchema } from "../../src/data/config.ts";
import type { PictureShape } from "../../src/pictures/picture.ts";
import type { DataSet, Example } from "../../src/data/dataset.ts";
import { openData } from "../../src/data/open-node.ts";
import { PatchwiseError } from "../../src/engine/errors.ts";

/** A folder with these files, which is gone after the test. */
export async function folderOf(files: Record<string, string | Uint8Array> = {}): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "patchwise-data-"));
  onTestFinished(() => rm(root, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
  return root;
}

/** A PNG of one colour, for which a number stands in its red channel. */
export function png(red: number, [width, height] = [4, 4]): Promise<Buffer> {
  const background = { r: red, g: 0, b: 0 };
  return sharp({ create: { width, height, channels: 3, background } } as const)
    .png()
    .toBuffer();
}

export const small = { height: 2, width: 2, channels: 3 } as const;

/** A data set that is closed after the test. */
export async function open(
  config: Record<string, unknown>,
  shape: PictureShape = small,
): Promise<DataSet> {
  const data = await openData(configOf(config), shape);
  onTestFinished(() => data.close());
  return data;
}

export function configOf(config: Record<string, unknown>): DataConfig {
  return dataSchema.parse(config);
}

export async function examplesOf(data: DataSet): Promise<Example[]> {
  const examples: Example[] = [];
  for (let i = 0; i < data.count; i++) examples.push(await data.example(i));
  return examples;
}

/** The red value of each example's first pixel. */
export async function redsOf(data: DataSet): Promise<number[]> {
  return (await examplesOf(data)).map(({ pixels }) => pixels[0]!);
}

/** "UsageError: …", or what shows that an error is none of ours. */
export function messageOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "no error",
    (error: unknown) =>
      error instanceof PatchwiseError
        ? `${error.name}: ${error.message}`
        : `not a PatchwiseError: ${String(error)}`,
  );
}

/** The name of the error that a step throws, or "done". */
export function outcomeOf(step: () => void): string {
  try {
    step();
    return "done";
  } catch (error) {
    return error instanceof Error ? error.name : String(error);
  }
}

/** An IDX file of unsigned bytes, unless told otherwise. */
export function idx(shape: readonly number[], data: Iterable<number>, type = 8): Uint8Array {
  const header = new DataView(new ArrayBuffer(4 + 4 * shape.length));
  header.setUint8(2, type);
  header.setUint8(3, shape.length);
  shape.forEach((size, axis) => header.setUint32(4 + 4 * axis, size));
  return Uint8Array.from([...new Uint8Array(header.buffer), ...data]);
}
