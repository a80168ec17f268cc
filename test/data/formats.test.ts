/** Every format of data sets gives the same pixels for the same picture files, and trains the same model on them. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packTar } from "modern-tar";
import { parquetWriteBuffer } from "hyparquet-writer";
import sharp, { type Sharp } from "sharp";
import { afterAll, expect, it } from "vitest";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import type { DataSet, Example } from "../../src/data/dataset.ts";
import { pictureSet } from "../../src/data/memory.ts";
import { mapValues } from "../../src/engine/records.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { readPicture } from "../../src/pictures/decode-node.ts";
import { withChannels } from "../../src/pictures/picture.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { readTensor } from "../../src/weights/safetensors/safetensors.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { train } from "../../src/training/run/train-node.ts";
import { trainModel } from "../../src/training/train-model.ts";
import { openData } from "../../src/data/open-node.ts";
import { type PngChunk, pngOfChunks } from "../../src/pictures/png.ts";
import { pngChunks } from "../../src/pictures/png-node.ts";
import { configOf, examplesOf, folderOf, idx, open } from "./support.ts";

const scratch = mkdtempSync(join(tmpdir(), "patchwise-formats-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Size = readonly [width: number, height: number];
type At = readonly [seed: number, size: Size];

const shape = { width: 8, height: 8, channels: 3 } as const;

/** A picture of changing colours, and of changing opacity where it has alpha. */
function raw(channels: 1 | 2 | 3 | 4, [seed, [width, height]]: At): Sharp {
  const pixels = Uint8Array.from(
    { length: width * height * channels },
    (_, i) => (seed * 53 + i * 29 + (i % 7) * 31) % 256,
  );
  return sharp(pixels, { raw: { width, height, channels } });
}

/** A PNG file with more chunks in front of its pixels, which say what its colours are. */
async function pngWith(picture: Sharp, added: readonly PngChunk[]): Promise<Uint8Array> {
  const [header, ...others] = pngChunks(await picture.png().toBuffer(), "a.png");
  return pngOfChunks([header!, ...added, ...others]);
}

const gamma = { type: "gAMA", data: Uint8Array.of(0, 1, 0x86, 0xa0) };
const displayP3 = { type: "cICP", data: Uint8Array.of(12, 13, 0, 1) };
const wide = (picture: Sharp) => picture.toColourspace("rgb16").withIccProfile("p3");
const turned = (picture: Sharp, orientation: number) => picture.withMetadata({ orientation });

/** Encoders of a picture for a seed and a size, by extension: depths, channels, profiles, alpha, orientations, ways to compress. */
const kinds: readonly (readonly [string, (at: At) => Sharp | Promise<Uint8Array>])[] = [
  ["png", (at) => raw(3, at).png()],
  ["png", (at) => raw(4, at).png()],
  ["png", (at) => raw(1, at).toColourspace("b-w").png()],
  ["png", (at) => raw(2, at).toColourspace("b-w").png()],
  ["png", (at) => raw(3, at).png({ palette: true, colours: 16 })],
  ["png", (at) => raw(3, at).png({ progressive: true })],
  ["png", (at) => raw(3, at).toColourspace("rgb16").png()],
  ["png", (at) => raw(4, at).toColourspace("rgb16").png()],
  ["png", (at) => raw(1, at).toColourspace("grey16").png()],
  ["png", (at) => raw(3, at).withIccProfile("p3").png()],
  ["png", (at) => raw(2, at).toColourspace("grey16").png()],
  ["png", (at) => raw(3, at).png({ palette: true, colours: 4 })],
  ["png", (at) => pngWith(raw(3, at), [gamma])],
  ["png", (at) => pngWith(raw(1, at).toColourspace("grey16"), [gamma])],
  ["png", (at) => pngWith(raw(4, at), [displayP3])],
  ["png", (at) => turned(raw(3, at), 6).png()],
  ["png", (at) => wide(raw(3, at)).png()],
  ["png", (at) => wide(raw(4, at)).png()],
  ["jpg", (at) => raw(3, at).jpeg()],
  ["jpeg", (at) => raw(3, at).jpeg({ progressive: true, chromaSubsampling: "4:4:4" })],
  ["JPG", (at) => raw(1, at).toColourspace("b-w").jpeg()],
  ["jpg", (at) => raw(3, at).toColourspace("cmyk").withIccProfile("cmyk").jpeg()],
  ["jpg", (at) => raw(3, at).withIccProfile("p3").jpeg()],
  ...[2, 3, 4, 5, 6, 7, 8].map(
    (orientation) => ["jpg", (at: At) => raw(3, at).withMetadata({ orientation }).jpeg()] as const,
  ),
  ["webp", (at) => raw(3, at).webp()],
  ["webp", (at) => raw(4, at).webp({ lossless: true })],
  ["webp", (at) => turned(raw(3, at), 8).withIccProfile("p3").webp()],
  ["avif", (at) => raw(3, at).avif()],
  ["avif", (at) => wide(raw(3, at)).avif({ bitdepth: 10, lossless: true })],
  ["avif", (at) => raw(4, at).avif()],
  ["avif", (at) => raw(3, at).withIccProfile("p3").avif({ bitdepth: 8, lossless: true })],
  ["gif", (at) => raw(3, at).gif()],
  ["gif", (at) => raw(4, at).gif()],
];

async function encoded(file: Sharp | Promise<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(file instanceof Promise ? await file : await file.toBuffer());
}

interface Source {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly label: "ant" | "bee";
}

async function sources(...[seed, size]: At): Promise<Source[]> {
  return Promise.all(
    kinds.map(async ([extension, encode], i) => ({
      name: `${String(i).padStart(2, "0")}.${extension}`,
      bytes: await encoded(encode([seed + i, size])),
      label: i < kinds.length / 2 ? ("ant" as const) : ("bee" as const),
    })),
  );
}

/** Writes the same pictures in each format on disk, and returns the fields of `data` for each. */
async function written(all: readonly Source[]): Promise<Record<string, Record<string, unknown>>> {
  const folder = (nameOf: (source: Source) => string, more: Record<string, string> = {}) =>
    folderOf({ ...Object.fromEntries(all.map((each) => [nameOf(each), each.bytes])), ...more });
  const rows = all.map(({ name, label }) => JSON.stringify({ file_name: name, label })).join("\n");
  const entry = (name: string, body: Uint8Array | string) => ({
    header: { name, size: body.length },
    body,
  });
  const archive = await packTar(
    all.flatMap(({ name, bytes, label }) => [
      entry(name, bytes),
      entry(name.replace(/\..*/, ".cls"), label === "ant" ? "0" : "1"),
    ]),
  );
  const table = parquetWriteBuffer({
    schema: [
      { name: "schema", num_children: 2 },
      { name: "image", repetition_type: "OPTIONAL", num_children: 1 },
      { name: "bytes", type: "BYTE_ARRAY", repetition_type: "OPTIONAL" },
      { name: "label", type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" },
    ],
    columnData: [
      { name: "image", data: all.map(({ bytes }) => ({ bytes })) },
      { name: "label", data: all.map(({ label }) => label) },
    ],
    rowGroupSize: 13,
  });
  const shards = await folderOf({
    "a.tar": new Uint8Array(archive),
    "a.parquet": new Uint8Array(table),
  });
  return {
    "a folder": { kind: "images", path: await folder(({ name, label }) => `${label}/${name}`) },
    "a folder with metadata": {
      kind: "images",
      path: await folder(({ name }) => name, { "metadata.jsonl": rows }),
    },
    "a tar archive": { kind: "tar", path: join(shards, "a.tar"), classes: ["ant", "bee"] },
    "a parquet file": { kind: "parquet", path: join(shards, "a.parquet") },
  };
}

const pixelsOf = (examples: readonly Example[]) =>
  examples.map(({ pixels, label }) => ({ pixels: [...pixels], label }));

/** Pictures of the size that is trained on, read into memory as a program reads them. */
async function inMemory(all: readonly Source[]): Promise<DataSet> {
  const pictures = all.map(async ({ bytes, label }) => ({
    ...withChannels(await readPicture(bytes), shape.channels),
    label,
  }));
  return pictureSet(await Promise.all(pictures));
}

it("gives the same pixels and classes from every format", async () => {
  const all = await sources(1, [8, 8]);
  expect(all.length).toBeGreaterThanOrEqual(30);
  const expected = pixelsOf(await examplesOf(await inMemory(all)));
  for (const [name, config] of Object.entries(await written(all))) {
    const data = await open(config, shape);
    expect({ name, classes: data.classes }).toEqual({ name, classes: ["ant", "bee"] });
    for (const [i, example] of pixelsOf(await examplesOf(data)).entries()) {
      const file = `${all[i]!.name} of ${name}`;
      expect({ file, ...example }).toEqual({ file, ...expected[i] });
    }
  }
});

it("fits pictures of other sizes alike in every format on disk", async () => {
  const all = await sources(40, [19, 7]);
  const configs = Object.values(await written(all));
  const [first, ...others] = await Promise.all(
    configs.map(async (config) => pixelsOf(await examplesOf(await open(config, shape)))),
  );
  for (const other of others) expect(other).toEqual(first);
});

it("gives the same pixels as clips of one frame, and from IDX what it was given", async () => {
  const all = await sources(1, [8, 8]);
  const expected = pixelsOf(await examplesOf(await inMemory(all)));
  const path = await folderOf(
    Object.fromEntries(all.map(({ name, bytes, label }) => [`${label}/${name}`, bytes])),
  );
  const clips = await openData(configOf({ kind: "clips", path }), { ...shape, frames: 1 });
  expect(pixelsOf(await examplesOf(clips))).toEqual(expected);
  await clips.close();
  const grey = expected.map(({ pixels }) => pixels.filter((_, i) => i % 3 === 0));
  const files = {
    "train-images-idx3-ubyte": idx([all.length, 8, 8], grey.flat()),
    "train-labels-idx1-ubyte": idx(
      [all.length],
      expected.map(({ label }) => label!),
    ),
  };
  const data = await open({ kind: "idx", path: await folderOf(files) }, shape);
  for (const [i, { pixels, label }] of pixelsOf(await examplesOf(data)).entries()) {
    expect(pixels).toEqual(grey[i]!.flatMap((value) => [value, value, value]));
    expect(label).toBe(expected[i]!.label);
  }
});

/** SHA-256 of each array by name. */
const hashes = (arrays: Readonly<Record<string, NdArray>>) =>
  mapValues(arrays, ({ data }) => createHash("sha256").update(data).digest("hex"));

it("trains the same weights from every format, bit for bit", async () => {
  const all = await sources(7, [8, 8]);
  const backend = nodeBackend("cpu");
  const training = { steps: 3, batch: 8, warmUp: 1, threads: 1 };
  const settings = { patch: 4, hidden: 16, depth: 1, heads: 1 };
  const model = await trainModel({
    backend,
    network: settings,
    data: await inMemory(all),
    shape,
    seed: 3,
    ...training,
  });
  for (const [name, data] of Object.entries(await written(all))) {
    const out = join(scratch, name.replaceAll(" ", "-"));
    // Held-out pictures are chosen by their names, which pictures in memory do not have.
    const validation = { share: 0 };
    const config = { seed: 3, data, picture: { size: 8 }, model: settings, training, validation };
    await train(readTrainingConfig("run.yaml", JSON.stringify(config)), {
      backend,
      out,
      report: () => {},
    });
    const file = await openSafetensorsFile(join(out, "model.safetensors"));
    const weights = Object.fromEntries(
      await Promise.all(
        [...file.entries].map(async ([key, entry]) => [key, await readTensor(entry)] as const),
      ),
    );
    await file.close();
    expect({ name, weights: hashes(weights) }).toEqual({ name, weights: hashes(model.weights) });
  }
});
