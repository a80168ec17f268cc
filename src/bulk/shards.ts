/** Drawn pictures as the shards that data loaders read: WebDataset archives, or parquet files as Hugging Face publishes them. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { tarOf } from "../data/formats/write-tar.ts";
import { UsageError } from "../engine/errors.ts";
import type { PictureMetadata } from "../pictures/metadata.ts";
import { type FileContent, writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { readRegularFile } from "../weights/sources/read-node.ts";
import { createFolder, system } from "../weights/sources/system-error-node.ts";
import type { LineTask } from "./tasks.ts";

export const shardKinds = ["webdataset", "parquet"] as const;
export type ShardKind = (typeof shardKinds)[number];

/** A picture with what is known of it. */
interface Sample {
  readonly name: string;
  readonly png: Uint8Array;
  readonly caption: string;
  readonly record: PictureMetadata;
}

const formats: {
  readonly [K in ShardKind]: {
    readonly extension: string;
    readonly write: (samples: readonly Sample[]) => FileContent;
  };
} = {
  webdataset: { extension: ".tar", write: webdataset },
  parquet: { extension: ".parquet", write: parquet },
};

/** Bytes of pictures after which another shard begins: a shard is made in memory. */
const MOST_BYTES = 2 ** 28;

/** @throws UsageError if some of the tasks are clips */
export function requirePictures(tasks: readonly LineTask[]): void {
  const clip = tasks.find(({ file }) => !file.endsWith(".png"));
  if (!clip) return;
  throw new UsageError(`${clip.file} is a clip, which shards cannot hold; leave --shards out.`);
}

/**
 * Packs the pictures of a folder, in the order of their lines, into `shards/pictures-00000.tar` or `.parquet` and so on below it. The
 * same pictures give the same bytes.
 *
 * @param most pictures in a shard; one of large pictures has fewer
 * @returns names of the files
 * @throws UsageError if the pictures are clips; PatchwiseError if a file cannot be read or written
 */
export async function packShards(
  folder: string,
  tasks: readonly LineTask[],
  kind: ShardKind,
  most: number,
): Promise<readonly string[]> {
  const { extension, write } = formats[kind];
  requirePictures(tasks);
  const place = join(folder, "shards");
  await createFolder(place);
  const written: string[] = [];
  let samples: Sample[] = [];
  let bytes = 0;
  const flush = async () => {
    if (samples.length === 0) return;
    const name = `pictures-${String(written.length).padStart(5, "0")}${extension}`;
    await writeFileAtomic(join(place, name), write(samples));
    written.push(name);
    [samples, bytes] = [[], 0];
  };
  for (const { line, file, record } of tasks) {
    const path = join(folder, file);
    const png = await system(`read ${path}`, readRegularFile(path));
    samples.push({ name: line.name, png, caption: record.prompt ?? record.class ?? "", record });
    bytes += png.length;
    if (samples.length >= most || bytes >= MOST_BYTES) await flush();
  }
  await flush();
  await removeOthers(place, written);
  return written.map((name) => join(place, name));
}

/** Removes shards of an earlier run that had more pictures, or another form. */
async function removeOthers(place: string, written: readonly string[]): Promise<void> {
  for (const name of await readdir(place)) {
    if (/^pictures-\d{5,}\.(?:tar|parquet)$/.test(name) && !written.includes(name)) {
      await rm(join(place, name));
    }
  }
}

const utf8 = (text: string) => new TextEncoder().encode(text);

/** NAME.png, NAME.txt with the caption, and NAME.json with all settings. */
function* webdataset(samples: readonly Sample[]): Generator<Uint8Array> {
  yield* tarOf(
    samples.flatMap(({ name, png, caption, record }) => [
      { name: `${name}.png`, bytes: png },
      // A line is a caption of its own.
      { name: `${name}.txt`, bytes: utf8(caption.replaceAll(/\s+/g, " ")) },
      { name: `${name}.json`, bytes: utf8(JSON.stringify(record)) },
    ]),
  );
}

/** The columns image, text and settings (JSON), and label for models that draw classes. */
function parquet(samples: readonly Sample[]): Uint8Array {
  const text = (name: string) =>
    ({ name, type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" }) as const;
  const ofClasses = samples.every(({ record }) => record.class !== undefined);
  const columns: readonly ColumnSource[] = [
    { name: "image", data: samples.map(({ name, png }) => ({ bytes: png, path: `${name}.png` })) },
    { name: "text", data: samples.map(({ caption }) => caption) },
    { name: "settings", data: samples.map(({ record }) => JSON.stringify(record)) },
    ...(ofClasses ? [{ name: "label", data: samples.map(({ caption }) => caption) }] : []),
  ];
  const value = (dtype: string) => ({ dtype, _type: "Value" });
  const features = {
    image: { _type: "Image" },
    text: value("string"),
    settings: value("string"),
    ...(ofClasses && { label: value("string") }),
  };
  return new Uint8Array(
    parquetWriteBuffer({
      columnData: [...columns],
      schema: [
        { name: "schema", num_children: columns.length },
        { name: "image", num_children: 2, repetition_type: "OPTIONAL" },
        { name: "bytes", type: "BYTE_ARRAY", repetition_type: "OPTIONAL" },
        text("path"),
        ...columns.slice(1).map(({ name }) => text(name)),
      ],
      kvMetadata: [{ key: "huggingface", value: JSON.stringify({ info: { features } }) }],
      codec: "UNCOMPRESSED",
      // A loader reads whole groups of rows.
      rowGroupSize: 100,
    }),
  );
}
