/**
 * Computes the latents of a data set once, because encoding takes far longer than a training step and always
 * gives the same result. Existing latents are reused if they are of the same pictures and the same
 * autoencoder.
 */
import { stat } from "node:fs/promises";
import { counted, FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import { concat, input } from "../../engine/graph/functional.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { castArray, type NdArray } from "../../engine/arrays/ndarray.ts";
import type { Backend, Program, WeightSource } from "../../engine/runtime/backend.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { encodeImages } from "../../models/coders/autoencoder-kl.ts";
import { codecShape, encodeWithCodec, type ImageCodec } from "../../models/coders/image-codec.ts";
import { createParams } from "../../nn/params.ts";
import { closing } from "../../weights/sources/closing.ts";
import { lockFolder } from "../../weights/sources/lock-node.ts";
import { describeSystemError, makeFolders } from "../../weights/sources/system-error-node.ts";
import { refuseTooMany } from "../loading/batch-reader.ts";
import { pictureLayout } from "../loading/batches.ts";
import type { DataConfig } from "../config.ts";
import { type PictureShape, valuesOf } from "../../pictures/picture.ts";
import type { DataSet, Example } from "../dataset.ts";
import { fingerprint } from "../loading/fingerprint-node.ts";
import {
  canonical,
  type LatentExample,
  type LatentFile,
  latentFiles,
  type LatentManifest,
  openLatentFile,
  readManifest,
  removeOthers,
  writeLatentFile,
  writeManifest,
} from "./folder-node.ts";
import {
  latentBytes,
  type LatentCache,
  type LatentEvent,
  type LatentForm,
  storedChannels,
} from "./latents.ts";
import { openData } from "../open-node.ts";

export interface LatentOptions {
  readonly data: DataConfig;
  /** Shape of the pictures that are encoded. */
  readonly shape: PictureShape;
  readonly encoder: {
    readonly coder: ImageCodec;
    readonly weights: WeightSource;
    /** Identifies the weights of the autoencoder. */
    readonly hash: string;
  };
  readonly parts: LatentForm["parts"];
  readonly precision: LatentForm["precision"];
  readonly folder: string;
  readonly backend: Backend;
  readonly threads?: number | undefined;
  readonly report: (event: LatentEvent) => void;
  /** Stops the work; finished files are kept. */
  readonly signal?: AbortSignal | undefined;
}

/** Four pictures of 256×256, for which Stable Diffusion's encoder needs half a gigabyte of activations. */
const BATCH_PIXELS = 2 ** 18;
const MAX_BATCH = 64;

/**
 * Opens the latent cache of a data set and computes missing latents, which may take long. Unreadable pictures
 * have no latents, and the loader replaces them as it does without a cache.
 *
 * @returns undefined if the signal stopped the work
 * @throws UsageError if the data or the folder cannot be opened, or another process fills the folder; FormatError if too many pictures are
 *   unreadable, or files of the cache are damaged; PatchwiseError if the encoder gives values that are not
 *   finite
 */
export async function latentCache(options: LatentOptions): Promise<LatentCache | undefined> {
  const { folder } = options;
  await makeFolders(folder).catch((cause: unknown) => {
    throw new UsageError(
      `Cannot create the folder for latents ${folder}: ${describeSystemError(cause)}; choose another with latents.cache.`,
      { cause },
    );
  });
  // Another process would remove files that it does not know.
  const lock = await lockFolder(folder, "latents.cache");
  return closing(lock, async () =>
    closing(await openData(options.data, options.shape), (data) => filledCache(options, data)),
  );
}

async function filledCache(
  options: LatentOptions,
  data: DataSet,
): Promise<LatentCache | undefined> {
  const { manifest, anew } = await chooseManifest(options, data);
  const { folder, report } = options;
  await removeOthers(folder, manifest);
  const missing: LatentFile[] = [];
  const tally = { found: 0, tried: 0, unreadable: [] as number[] };
  for (const file of latentFiles(folder, manifest)) {
    const examples = await examplesIn(file, manifest);
    if (examples) {
      tally.found += file.count;
      count(tally, file, examples);
    } else missing.push(file);
  }
  const { found } = tally;
  report({ kind: "latents", folder, found, pictures: data.count, anew });
  if (missing.length > 0 && !(await make(missing, manifest, data, tally, options))) {
    return undefined;
  }
  return { folder, form: manifest.made.form, mirrored: manifest.made.mirrored };
}

/** Returns the manifest of the folder if its latents can be used. Otherwise writes a new one. */
async function chooseManifest(
  { data: config, shape, encoder, parts, precision, folder }: LatentOptions,
  { name, count: pictures, classes, captioned }: DataSet,
): Promise<{ readonly manifest: LatentManifest; readonly anew: string | undefined }> {
  const { flip, ...rest } = config;
  const { factor } = codecShape(encoder.coder);
  const wanted: LatentManifest = {
    format: "patchwise-latents",
    version: 1,
    made: {
      data: rest,
      files: await fingerprint(config),
      picture: [shape.height, shape.width, shape.channels],
      autoencoder: encoder.hash,
      mirrored: flip,
      form: {
        channels: codecShape(encoder.coder).latents,
        height: shape.height / factor,
        width: shape.width / factor,
        parts,
        precision,
      },
    },
    name,
    count: pictures,
    ...(classes && { classes: [...classes] }),
    captioned,
  };
  const before = await readManifest(folder);
  const anew = before && whyAnew(before, wanted);
  if (before && before !== "older" && anew === undefined) return { manifest: before, anew };
  await writeManifest(folder, wanted);
  return { manifest: wanted, anew };
}

/** Returns why existing latents cannot be used; undefined if they can. */
function whyAnew(before: LatentManifest | "older", wanted: LatentManifest): string | undefined {
  if (before === "older") return "they were written by another version of Patchwise";
  const [old, now] = [before.made, wanted.made];
  if (old.autoencoder !== now.autoencoder) return "they are of another autoencoder";
  if (canonical(old.data) !== canonical(now.data)) return "they were made with other data settings";
  if (old.files.files !== now.files.files) {
    return `the data was ${counted(old.files.files, "file")} and is ${now.files.files}`;
  }
  if (old.files.hash !== now.files.hash) return "files of the data have changed";
  if (before.count !== wanted.count) {
    return `the data was ${counted(before.count, "picture")} and is ${wanted.count}`;
  }
  if (old.picture.join() !== now.picture.join()) {
    const [height, width, channels] = old.picture;
    return `they are of pictures of ${height}×${width} with ${channels} channels`;
  }
  if (now.mirrored && !old.mirrored) return "the mirrored pictures are missing";
  if (now.form.parts === "moments" && old.form.parts === "mean") return "they lack the variances";
  if (old.form.precision !== now.form.precision) return `they are in ${old.form.precision}`;
  return undefined;
}

/** Reads the labels and captions of a file if it exists and belongs to the manifest. */
async function examplesIn(
  file: LatentFile,
  manifest: LatentManifest,
): Promise<readonly LatentExample[] | undefined> {
  const status = await stat(file.path).catch(() => undefined);
  const opened = status && (await openLatentFile(file, manifest));
  await opened?.file.close();
  return opened?.examples;
}

interface Tally {
  /** Pictures whose latents existed already. */
  readonly found: number;
  tried: number;
  readonly unreadable: number[];
}

function count(tally: Tally, { first }: LatentFile, examples: readonly LatentExample[]): void {
  tally.tried += examples.length;
  for (const [i, example] of examples.entries()) {
    if ("unreadable" in example) tally.unreadable.push(first + i);
  }
}

/** Computes the latents of files. Returns whether it finished, instead of being stopped. */
async function make(
  files: readonly LatentFile[],
  manifest: LatentManifest,
  data: DataSet,
  tally: Tally,
  options: LatentOptions,
): Promise<boolean> {
  const program = await compileEncoder(manifest.made.form, options);
  const begun = performance.now();
  const { found } = tally;
  let done = 0;
  const progress = (encoded: number) => {
    done += encoded;
    const left = data.count - found - done;
    const secondsLeft = ((performance.now() - begun) / 1000 / done) * left;
    const { count: pictures } = data;
    options.report({ kind: "encoding", done: found + done, pictures, secondsLeft });
  };
  try {
    for (const file of files) {
      const made = await encodeFile(file, manifest, data, program, options, progress);
      if (!made) return false;
      count(tally, file, made.examples);
      refuseTooMany(data, tally.unreadable, tally.tried);
      await writeLatentFile(file, manifest, made.latents, made.examples);
    }
    return true;
  } finally {
    await program.dispose();
  }
}

/** Compiles `images` [B, C, H, W] → `latents` [B, stored channels, h, w]. */
function compileEncoder(
  { parts }: LatentForm,
  { encoder: { coder, weights }, shape, backend, threads }: LatentOptions,
): Promise<Program> {
  const { inputs } = codecShape(coder);
  const images = input("images", [batch, inputs, shape.height, shape.width]);
  return backend.compile(graphOf({ latents: latentsOf() }), {
    weights,
    prepack: true,
    ...(threads !== undefined && { threads }),
  });

  function latentsOf(): Tensor {
    const params = createParams();
    if (coder.kind === "vq") return encodeWithCodec(params, images, coder);
    const { mean, logVariance } = encodeImages(params, images, coder.config);
    return parts === "moments" ? concat([mean, logVariance], 1) : mean;
  }
}

/** Computes the latents of the pictures of a file; undefined if the signal stopped the work. */
async function encodeFile(
  { first, count: pictures }: LatentFile,
  { made: { form, mirrored } }: LatentManifest,
  data: DataSet,
  program: Program,
  { shape, signal }: LatentOptions,
  progress: (encoded: number) => void,
): Promise<
  | { readonly latents: Uint8Array<ArrayBuffer>; readonly examples: readonly LatentExample[] }
  | undefined
> {
  const bytes = latentBytes(form);
  const versions = mirrored ? [false, true] : [false];
  const latents = new Uint8Array(pictures * versions.length * bytes);
  const examples: LatentExample[] = [];
  const rows = Math.max(
    1,
    Math.min(MAX_BATCH, Math.floor(BATCH_PIXELS / (shape.height * shape.width))),
  );
  for (let start = 0; start < pictures; start += rows) {
    if (signal?.aborted) return undefined;
    const size = Math.min(rows, pictures - start);
    const some = Array.from({ length: size }, (_, i) => read(data, first + start + i));
    const outcomes = await Promise.all(some);
    const readable = outcomes.flatMap((outcome, i) => ("pixels" in outcome ? [i] : []));
    for (const [version, flipped] of versions.entries()) {
      if (readable.length === 0) break;
      const pixels = readable.map((i) => (outcomes[i] as Example).pixels);
      const values = await encode(pixels, flipped, shape, program);
      requireNumbers(values.data, form, (row) => data.nameOf(first + start + readable[row]!));
      const { buffer, byteOffset, byteLength } = castArray(values, form.precision).data;
      const encoded = new Uint8Array(buffer, byteOffset, byteLength);
      for (const [row, i] of readable.entries()) {
        const place = (start + i) * versions.length + version;
        latents.set(encoded.subarray(row * bytes, (row + 1) * bytes), place * bytes);
      }
    }
    for (const outcome of outcomes) {
      examples.push(
        "pixels" in outcome ? { label: outcome.label, captions: [...outcome.captions] } : outcome,
      );
    }
    progress(size);
  }
  return { latents, examples };
}

/** Reads an example, or returns why it cannot be read. */
async function read(
  data: DataSet,
  index: number,
): Promise<Example | { readonly name: string; readonly unreadable: string }> {
  try {
    return await data.example(index);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { name: data.nameOf(index), unreadable: error.message };
  }
}

/** Encodes a batch of pictures. */
async function encode(
  pictures: readonly Uint8Array[],
  flipped: boolean,
  shape: PictureShape,
  program: Program,
): Promise<NdArray<"float32">> {
  const layout = pictureLayout(shape);
  const { bytes } = layout;
  const pixels = new Uint8Array(pictures.length * bytes);
  for (const [i, each] of pictures.entries()) {
    layout.put(each, flipped, pixels.subarray(i * bytes, (i + 1) * bytes));
  }
  const { latents } = await program.run({ images: valuesOf(pixels, shape) });
  return castArray(latents!, "float32");
}

function requireNumbers(
  values: Float32Array,
  form: LatentForm,
  nameOf: (row: number) => string,
): void {
  const { precision } = form;
  const largest = precision === "float16" ? 65504 : Infinity;
  const bad = values.findIndex((value) => !(Math.abs(value) <= largest) || !Number.isFinite(value));
  if (bad === -1) return;
  const size = storedChannels(form) * form.height * form.width;
  const way = Number.isFinite(values[bad])
    ? "set latents.precision to float32"
    : "give another autoencoder";
  throw new PatchwiseError(
    `The autoencoder makes latents of ${nameOf(Math.floor(bad / size))} that are not finite in ${precision}, such as ${values[bad]}; ${way}.`,
  );
}
