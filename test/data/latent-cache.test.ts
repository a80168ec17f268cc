import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { DataConfig } from "../../src/data/config.ts";
import {
  latentBytes,
  type LatentDraw,
  type LatentEvent,
  type LatentForm,
  latentValues,
} from "../../src/data/latents/latents.ts";
import { latentCache, type LatentOptions } from "../../src/data/latents/cache-node.ts";
import { type Batch } from "../../src/data/loading/batch-reader.ts";
import { openLoader } from "../../src/data/loading/loader-node.ts";
import { valuesOf } from "../../src/pictures/picture.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { castArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { encodeImages } from "../../src/models/coders/autoencoder-kl.ts";
import type { OpenAutoencoder } from "../../src/models/coders/autoencoder-kl-checkpoint.ts";
import { openAutoencoder } from "../../src/models/coders/image-codec-node.ts";
import { createParams } from "../../src/nn/params.ts";
import { lockFolder } from "../../src/weights/sources/lock-node.ts";
import { writeVAE } from "../support/model-folders.ts";
import { configOf, folderOf, messageOf } from "./support.ts";

const shape = { height: 8, width: 4, channels: 3 } as const;
const backend = nodeBackend("cpu");
let autoencoder: OpenAutoencoder;

function encoderOf({ config, weights }: OpenAutoencoder, hash: string): LatentOptions["encoder"] {
  return { coder: { kind: "kl", config }, weights, hash };
}
let vae: string;

beforeAll(async () => {
  vae = await mkdtemp(path.join(tmpdir(), "patchwise-vae-"));
  await writeVAE(vae);
  autoencoder = await openAutoencoder(vae);
});
afterAll(async () => {
  await autoencoder.file.close();
  await rm(vae, { recursive: true, force: true });
});

/** Pictures in which no two pixels are alike, in two classes with a caption each. */
async function pictures(count: number, bad: readonly number[] = []): Promise<string> {
  const files: Record<string, string | Uint8Array> = {};
  for (let i = 0; i < count; i++) {
    files[`${String(i).padStart(3, "0")}.png`] = bad.includes(i) ? "damaged" : await picture(i);
    files[`${String(i).padStart(3, "0")}.txt`] = `number ${i}`;
  }
  return folderOf(files);
}

function picture(seed: number): Promise<Buffer> {
  const { height, width, channels } = shape;
  const pixels = Uint8Array.from(
    { length: height * width * channels },
    (_, i) => (37 * i + 101 * seed + (i * i) / 7) % 256,
  );
  return sharp(pixels, { raw: { width, height, channels } }).png().toBuffer();
}

interface Made {
  readonly options: LatentOptions;
  readonly events: readonly LatentEvent[];
  /** Pictures that were encoded, mirrored ones too. */
  readonly encoded: () => number;
}

/** Options for a cache in a folder of its own, and what is told of it. */
async function optionsFor(data: DataConfig, more: Partial<LatentOptions> = {}): Promise<Made> {
  const events: LatentEvent[] = [];
  let encoded = 0;
  const counting: Backend = {
    device: "cpu",
    async compile(graph, options) {
      const program = await backend.compile(graph, options);
      return {
        ...program,
        run(inputs, runOptions) {
          encoded += inputs["images"]!.shape[0]!;
          return program.run(inputs, runOptions);
        },
      };
    },
  };
  const options: LatentOptions = {
    data,
    shape,
    encoder: encoderOf(autoencoder, "one"),
    parts: "moments",
    precision: "float32",
    folder: path.join(await folderOf(), "latents"),
    backend: counting,
    threads: 1,
    report: (event) => events.push(event),
    ...more,
  };
  return { options, events, encoded: () => encoded };
}

/** The first batches, of pictures or of their latents. */
async function batchesOf(
  data: DataConfig,
  count: number,
  latents?: Awaited<ReturnType<typeof latentCache>>,
): Promise<{ batches: Batch[]; skipped: string[] }> {
  const loader = await openLoader({ data, shape, batch: 4, seed: 1, from: 0, latents });
  onTestFinished(() => loader.close());
  const batches: Batch[] = [];
  for (let i = 0; i < count; i++) batches.push(await loader.next());
  return { batches, skipped: loader.skipped().map(({ name }) => name) };
}

/** Mean and log-variance of pictures, as the autoencoder itself says them. */
async function posteriorOf(pixels: Uint8Array): Promise<{ mean: number[]; logVariance: number[] }> {
  const images = input("images", [batch, 3, shape.height, shape.width]);
  const { mean, logVariance } = encodeImages(createParams(), images, autoencoder.config);
  const program = await backend.compile(graphOf({ mean, logVariance }), {
    weights: autoencoder.weights,
    threads: 1,
  });
  const outputs = await program.run({ images: valuesOf(pixels, shape) });
  await program.dispose();
  return {
    mean: toNumbers(outputs["mean"]!),
    logVariance: toNumbers(outputs["logVariance"]!),
  };
}

const furthest = (a: ArrayLike<number>, b: readonly number[]) => {
  expect(a.length).toBe(b.length);
  return b.reduce((most, value, i) => Math.max(most, Math.abs(value - a[i]!)), 0);
};

describe("a latent cache", () => {
  it.each([
    ["float32", 1e-6],
    ["float16", 4e-4],
  ] as const)("holds the latents of each picture, in %s", async (precision, most) => {
    const data = configOf({ kind: "images", path: await pictures(10), flip: true });
    const { options } = await optionsFor(data, { precision });
    const cache = (await latentCache(options))!;
    expect(cache.form).toEqual({ channels: 4, height: 4, width: 2, parts: "moments", precision });
    const plain = await batchesOf(data, 6);
    const latent = await batchesOf(data, 6, cache);
    for (const [i, batchOfPixels] of plain.batches.entries()) {
      const { pixels: bytes, ...rest } = latent.batches[i]!;
      const { pixels, ...known } = batchOfPixels;
      expect(rest).toEqual(known);
      const draw = { form: cache.form, posterior: "mean", scale: 1, shift: 0 } as const;
      const { mean, logVariance } = await posteriorOf(pixels);
      expect(furthest(latentValues(bytes, draw, randomKey(1)).data, mean)).toBeLessThan(most);
      const stored = castArray(
        ndarray(
          precision,
          [bytes.length / latentBytes(cache.form), 2, 32],
          precision === "float16" ? new Uint16Array(bytes.buffer) : new Float32Array(bytes.buffer),
        ),
        "float32",
      ).data;
      const variances = Array.from({ length: 4 }, (_, b) =>
        stored.slice(b * 64 + 32, (b + 1) * 64),
      );
      const flat = variances.flatMap((each) => [...each]);
      expect(furthest(flat, logVariance)).toBeLessThan(most);
    }
  });

  it("is made once and then reused", async () => {
    const data = configOf({ kind: "images", path: await pictures(10) });
    const { options, events, encoded: count } = await optionsFor(data);
    const first = await latentCache(options);
    expect(count()).toBe(10);
    expect(events.at(-1)).toMatchObject({
      kind: "encoding",
      done: 10,
      pictures: 10,
      secondsLeft: 0,
    });
    expect(await latentCache(options)).toEqual(first);
    expect(count()).toBe(10);
    const { folder } = options;
    expect(events.filter(({ kind }) => kind === "latents")).toEqual([
      { kind: "latents", folder, found: 0, pictures: 10, anew: undefined },
      { kind: "latents", folder, found: 10, pictures: 10, anew: undefined },
    ]);
  });

  it.each<
    [string, (root: string) => Promise<Partial<LatentOptions>> | Partial<LatentOptions>, string]
  >([
    [
      "another autoencoder",
      () => ({ encoder: encoderOf(autoencoder, "two") }),
      "they are of another autoencoder",
    ],
    [
      "a changed picture",
      async (root) => {
        await writeFile(path.join(root, "003.png"), await picture(50));
        await utimes(path.join(root, "003.png"), 1e9, 1e9);
        return {};
      },
      "files of the data have changed",
    ],
    [
      "a changed caption",
      async (root) => {
        await writeFile(path.join(root, "003.txt"), "something else");
        return {};
      },
      "files of the data have changed",
    ],
    [
      "one picture more",
      async (root) => {
        await writeFile(path.join(root, "010.png"), await picture(10));
        await writeFile(path.join(root, "010.txt"), "number 10");
        return {};
      },
      "the data was 20 files and is 22",
    ],
    [
      "another way to fit them",
      (root) => ({ data: configOf({ kind: "images", path: root, fit: "contain" }) }),
      "they were made with other data settings",
    ],
    [
      "mirrored pictures",
      (root) => ({ data: configOf({ kind: "images", path: root, flip: true }) }),
      "the mirrored pictures are missing",
    ],
    [
      "another size",
      () => ({ shape: { height: 4, width: 4, channels: 3 } }),
      "they are of pictures of 8×4 with 3 channels",
    ],
    ["another precision", () => ({ precision: "float16" }), "they are in float32"],
  ])("is made again for %s, with the reason", async (_, change, anew) => {
    const root = await pictures(10);
    const { options, events } = await optionsFor(configOf({ kind: "images", path: root }));
    await latentCache(options);
    const changed = { ...options, ...(await change(root)) };
    const cache = await latentCache(changed);
    expect(events.findLast(({ kind }) => kind === "latents")).toMatchObject({ found: 0, anew });
    expect(events.at(-1)).toMatchObject({ kind: "encoding" });
    expect(await latentCache(changed)).toEqual(cache);
    expect(events.at(-1)).toMatchObject({ kind: "latents", anew: undefined });
  });

  it("is locked while it is filled", async () => {
    const { options } = await optionsFor(configOf({ kind: "images", path: await pictures(1) }));
    await mkdir(options.folder, { recursive: true });
    const lock = await lockFolder(options.folder);
    expect(await messageOf(latentCache(options))).toMatch(
      new RegExp(`Process ${process.pid} has been at work in .*another folder with latents.cache`),
    );
    await lock.close?.();
    expect(await latentCache(options)).toBeDefined();
  });

  it("serves a training that needs less than the cache holds", async () => {
    const root = await pictures(6);
    const { options, encoded: count } = await optionsFor(
      configOf({ kind: "images", path: root, flip: true }),
    );
    await latentCache(options);
    const data = configOf({ kind: "images", path: root });
    const cache = await latentCache({ ...options, data, parts: "mean" });
    expect(count()).toBe(12);
    expect(cache).toMatchObject({ mirrored: true, form: { parts: "moments" } });
    const { batches } = await batchesOf(data, 1);
    const [own] = (await batchesOf(data, 1, cache)).batches;
    const draw = { form: cache!.form, posterior: "mean", scale: 2, shift: 1 } as const;
    const means = (await posteriorOf(batches[0]!.pixels)).mean.map((value) => 2 * (value - 1));
    expect(furthest(latentValues(own!.pixels, draw, randomKey(0)).data, means)).toBeLessThan(2e-6);
  });

  it("resumes after an interruption and gives the same bytes", async () => {
    const data = configOf({ kind: "images", path: await pictures(300) });
    const whole = await optionsFor(data, { parts: "mean" });
    await latentCache(whole.options);
    const stop = new AbortController();
    const parted = await optionsFor(data, { parts: "mean" });
    const report = (event: LatentEvent) => {
      if (event.kind === "encoding" && event.done > 128) stop.abort();
    };
    const { folder } = parted.options;
    expect(await latentCache({ ...parted.options, report, signal: stop.signal })).toBeUndefined();
    const first = "latents-00000-of-00003.safetensors";
    expect((await readdir(folder)).sort()).toEqual([first, "latents.json"]);
    const { ino } = await stat(path.join(folder, first));
    // What a process that was killed leaves behind.
    await writeFile(path.join(folder, `.${first}.0123456789ab.tmp`), "half");
    await latentCache(parted.options);
    expect(parted.events[0]).toMatchObject({ kind: "latents", found: 128, pictures: 300 });
    expect((await stat(path.join(folder, first))).ino).toBe(ino);
    const [a, b] = [await filesIn(whole.options.folder), await filesIn(folder)];
    expect([...b.keys()]).toEqual([...a.keys()]);
    for (const [name, bytes] of a) expect(bytes.equals(b.get(name)!)).toBe(true);
  });

  it("skips unreadable pictures, which the loader reports and replaces", async () => {
    const data = configOf({ kind: "images", path: await pictures(20, [3, 11]) });
    const { options, encoded: count } = await optionsFor(data);
    const cache = await latentCache(options);
    expect(count()).toBe(18);
    const [plain, latent] = [await batchesOf(data, 6), await batchesOf(data, 6, cache)];
    expect(latent.skipped.sort()).toEqual(plain.skipped.sort());
    expect(latent.skipped).toHaveLength(2);
    const captions = ({ batches }: typeof plain) => batches.map((each) => each.captions);
    expect(captions(latent)).toEqual(captions(plain));
  });

  it("is not made if too many pictures are unreadable", async () => {
    const bad = Array.from({ length: 12 }, (_, i) => i);
    const { options } = await optionsFor(
      configOf({ kind: "images", path: await pictures(40, bad) }),
    );
    expect(await messageOf(latentCache(options))).toMatch(
      /^FormatError: 12 of the 40 pictures of .* that were tried cannot be read/,
    );
    expect(await readdir(options.folder)).toEqual(["latents.json"]);
  });

  it("names the picture whose latents cannot be stored", async () => {
    const data = configOf({ kind: "images", path: await pictures(3) });
    const { options } = await optionsFor(data, { precision: "float16" });
    const large: Backend = {
      device: "cpu",
      async compile(graph, given) {
        const program = await backend.compile(graph, given);
        return {
          ...program,
          async run(inputs) {
            const { latents } = await program.run(inputs);
            const { data: values, shape: all } = castArray(latents!, "float32");
            const factor = (i: number) => (i >= values.length / 3 ? 1e9 : 1);
            return {
              latents: ndarray(
                "float32",
                all,
                values.map((value, i) => value * factor(i)),
              ),
            };
          },
        };
      },
    };
    expect(await messageOf(latentCache({ ...options, backend: large }))).toMatch(
      /^PatchwiseError: The autoencoder makes latents of .*001\.png that are not finite in float16, such as .*; set latents\.precision to float32\.$/,
    );
  });

  it("names a damaged file or a foreign folder", async () => {
    const data = configOf({ kind: "images", path: await pictures(3) });
    const { options } = await optionsFor(data);
    const file = path.join(options.folder, "latents-00000-of-00001.safetensors");
    await latentCache(options);
    await truncate(file, 100);
    expect(await messageOf(latentCache(options))).toMatch(
      /^FormatError: The latents in .*00001\.safetensors are damaged \(.*\); remove the file to compute them again\.$/,
    );
    await rm(file);
    expect(await latentCache(options)).toMatchObject({ mirrored: false });
    const manifest = path.join(options.folder, "latents.json");
    await writeFile(manifest, "{}");
    expect(await messageOf(latentCache(options))).toMatch(
      /^FormatError: .*latents\.json is damaged \(format: .*\); remove its folder/,
    );
    await writeFile(manifest, "no");
    expect(await messageOf(latentCache(options))).toMatch(
      /^FormatError: Cannot read .*latents\.json/,
    );
    const below = { ...options, folder: path.join(manifest, "latents") };
    expect(await messageOf(latentCache(below))).toMatch(
      /^UsageError: Cannot create the folder for latents .*; choose another with latents\.cache\.$/,
    );
  });

  it("is made again if another version wrote it", async () => {
    const data = configOf({ kind: "images", path: await pictures(3) });
    const { options, events } = await optionsFor(data);
    await mkdir(options.folder);
    const other = JSON.stringify({ format: "patchwise-latents", version: 2, more: true });
    await writeFile(path.join(options.folder, "latents.json"), other);
    await writeFile(path.join(options.folder, "latents-00000-of-00007.safetensors"), "other");
    await latentCache(options);
    expect(events[0]).toMatchObject({ anew: "they were written by another version of Patchwise" });
    expect((await readdir(options.folder)).sort()).toEqual([
      "latents-00000-of-00001.safetensors",
      "latents.json",
    ]);
  });

  it.each([
    ["idx", { kind: "idx", path: "" }],
    ["emoji", { kind: "emoji", styles: ["firefox"], limit: 3 }],
  ])("is reused for data of kind %s", async (kind, config) => {
    const root = await folderOf({
      "train-images-idx3-ubyte": Uint8Array.from([
        0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9,
      ]),
      "train-labels-idx1-ubyte": Uint8Array.from([0, 0, 8, 1, 0, 0, 0, 2, 3, 4]),
    });
    const data = configOf(kind === "idx" ? { ...config, path: root } : config);
    const { options, encoded: count } = await optionsFor(data);
    const cache = await latentCache(options);
    const made = count();
    expect(made).toBeGreaterThan(0);
    expect(await latentCache(options)).toEqual(cache);
    expect(count()).toBe(made);
    const [plain, latent] = [await batchesOf(data, 2), await batchesOf(data, 2, cache)];
    expect(latent.batches.map(({ labels }) => labels)).toEqual(
      plain.batches.map(({ labels }) => labels),
    );
  });
});

async function filesIn(folder: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(folder)).sort();
  const files = new Map<string, Buffer>();
  for (const name of names) files.set(name, await readFile(path.join(folder, name)));
  return files;
}

describe("latentValues", () => {
  const form: LatentForm = {
    channels: 1,
    height: 50,
    width: 50,
    parts: "moments",
    precision: "float32",
  };

  it("samples from the Gaussian of each latent, scaled", () => {
    // Of two pictures: mean 3 with deviation 1/2, mean −1 with deviation 2.
    const area = 2500;
    const stored = new Float32Array(4 * area);
    for (const [i, value] of [3, Math.log(1 / 4), -1, Math.log(4)].entries()) {
      stored.fill(value, i * area, (i + 1) * area);
    }
    const draw: LatentDraw = { form, posterior: "sample", scale: 2, shift: 1 };
    const values = latentValues(new Uint8Array(stored.buffer), draw, randomKey(5));
    expect(values.shape).toEqual([2, 1, 50, 50]);
    const moments = (from: number) => {
      const part = [...values.data.subarray(from, from + area)];
      const mean = part.reduce((sum, value) => sum + value, 0) / area;
      const square = part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / area;
      return { mean, deviation: Math.sqrt(square) };
    };
    // Four standard errors of the mean, and of the deviation.
    const within = ({ mean, deviation }: ReturnType<typeof moments>, m: number, d: number) =>
      Math.abs(mean - m) < (4 * d) / 50 && Math.abs(deviation - d) < (4 * d) / 50 / Math.SQRT2;
    expect(within(moments(0), 4, 1)).toBe(true);
    expect(within(moments(area), -4, 4)).toBe(true);
  });

  it("depends only on the key, and not at all if the mean is used", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), fc.nat(1000), (count, seed) => {
        const small: LatentForm = {
          channels: 2,
          height: 1,
          width: 3,
          parts: "moments",
          precision: "float32",
        };
        const stored = Float32Array.from({ length: count * 12 }, (_, i) => Math.sin(i));
        const bytes = new Uint8Array(stored.buffer);
        const values = (posterior: LatentDraw["posterior"], key: number) => [
          ...latentValues(bytes, { form: small, posterior, scale: 1, shift: 0 }, randomKey(key))
            .data,
        ];
        expect(values("sample", seed)).toEqual(values("sample", seed));
        expect(values("sample", seed)).not.toEqual(values("sample", seed + 1));
        expect(values("mean", seed)).toEqual([...stored].filter((_, i) => i % 12 < 6));
      }),
      { numRuns: 50 },
    );
  });
});
