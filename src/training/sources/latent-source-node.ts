/** Latents or codes as the source of a training: the autoencoder, which is copied into the training's folder, and their cache. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { type DataConfig, limitedTo } from "../../data/config.ts";
import type { LatentDraw, LatentEvent } from "../../data/latents/latents.ts";
import { loaderThreadBytes } from "../../data/loading/loader-node.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import { latentCache } from "../../data/latents/cache-node.ts";
import { canonical } from "../../data/latents/folder-node.ts";
import { openData } from "../../data/open-node.ts";
import { openCodec } from "../../models/coders/image-codec-node.ts";
import {
  codecParams,
  codecShape,
  type OpenCodec,
  type ImageCodec,
} from "../../models/coders/image-codec.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { exists } from "../../weights/sources/folder-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { readTensor } from "../../weights/safetensors/safetensors.ts";
import { pictureShape, type RunConfig, trainingData, validationData } from "../config/config.ts";
import { requireWholeLatents } from "../tasks/checks.ts";
import type { ImageShape } from "../../models/default-sizes.ts";
import { codecFiles } from "../run/run-folder-node.ts";
import type { Loaders, OpenDataSource } from "../run/train-node.ts";

export interface LatentSourceOptions {
  readonly backend: Backend;
  /** The training's folder. */
  readonly out: string;
  /** The step that the training starts or resumes from. */
  readonly step: number;
  readonly resumed: boolean;
  readonly report: (event: LatentEvent) => void;
  readonly signal?: AbortSignal | undefined;
}

/** The metadata key of the hash that identifies an autoencoder. */
const hashKey = "autoencoder";

/**
 * Opens autoencoder and data. Latents are computed only in `begin`, because that can take long.
 *
 * @throws UsageError when the autoencoder is missing, or does not fit the pictures or the training that resumes
 */
export async function openLatentSource(
  config: RunConfig,
  latents: NonNullable<RunConfig["latents"]>,
  loaders: Loaders,
  { out, step, resumed, ...running }: LatentSourceOptions,
): Promise<OpenDataSource> {
  const { posterior, precision, cache = join(out, "latents") } = latents;
  const shape = pictureShape(config);
  const opened = await openCodec(latents.autoencoder);
  return closingOnFailure([opened.file, loaders], async () => {
    const coder = scaledCodec(opened, latents);
    const { inputs, outputs } = codecShape(coder);
    if (inputs !== shape.channels || outputs !== shape.channels) {
      throw new UsageError(
        `${latents.autoencoder} encodes pictures of ${inputs} channels and decodes ${outputs}, but picture.channels is ${shape.channels}; set it to that number, or give another autoencoder.`,
      );
    }
    requireWholeLatents(shape, coder, latents.autoencoder);
    const hash = await hashOf(opened);
    const copy = join(out, codecFiles[coder.kind]);
    const before = resumed ? await writtenHash(copy) : undefined;
    if (before !== undefined && before !== hash) {
      throw new UsageError(
        `The training in ${out} started with another autoencoder than ${latents.autoencoder}; set latents.autoencoder to the one that it started with, such as ${copy}, or start a new training in another folder.`,
      );
    }
    const pictures = trainingData(config);
    const data = await openData(pictures, shape);
    const { name, count, classes, captioned, heldOut, survey } = data;
    await data.close();

    const cached = (of: DataConfig, folder: string) =>
      latentCache({
        ...running,
        data: of,
        shape,
        encoder: { coder, weights: opened.weights, hash },
        ...(coder.kind === "vq"
          ? ({ parts: "tokens", precision: "float32" } as const)
          : ({ parts: posterior === "mean" ? "mean" : "moments", precision } as const)),
        folder,
        threads: config.training.threads,
      });
    return {
      info: { name, count, classes, captioned, heldOut },
      survey,
      image: latentShape(shape, coder),
      coder,
      async begin() {
        if (before === undefined) await writeAutoencoder(copy, opened, hash);
        const own = await cached(pictures, cache);
        const held = validationData(config, heldOut ?? 0);
        // No others than those that are used are encoded.
        const others =
          held && limitedTo(held.data, config.validation.batches * config.training.batch);
        const other = own && others && (await cached(others, join(cache, "validation")));
        if (!own || (others && !other)) return undefined;
        return {
          loader: await loaders.training(step, own),
          validation: others && (await loaders.validation(others, other)),
          own: held?.own ?? false,
          latents: { form: own.form, posterior, ...scalesOf(coder) },
          overhead: loaderThreadBytes,
        };
      },
      async close() {
        await loaders.close();
        await opened.file.close();
      },
    };
  });
}

/** The autoencoder with the scale and shift that the config sets, if it sets them. */
function scaledCodec(
  opened: OpenCodec,
  { autoencoder, scale, shift }: NonNullable<RunConfig["latents"]>,
): ImageCodec {
  if (opened.kind === "kl") {
    const { scale: ownScale, shift: ownShift } = opened.config;
    const scales = { scale: scale ?? ownScale, shift: shift ?? ownShift };
    return { kind: "kl", config: { ...opened.config, ...scales } };
  }
  if (scale === undefined && shift === undefined) return { kind: "vq", config: opened.config };
  throw new UsageError(
    `latents.${scale === undefined ? "shift" : "scale"} is given, but ${autoencoder} is a VQGAN, whose codes have no scale or shift; leave it out.`,
  );
}

function scalesOf({ kind, config }: ImageCodec): Pick<LatentDraw, "scale" | "shift"> {
  return kind === "kl" ? { scale: config.scale, shift: config.shift } : { scale: 1, shift: 0 };
}

/** The width of the vector that the network sees in place of a code. */
const TOKEN_WIDTH = 64;

function latentShape({ height, width }: PictureShape, coder: ImageCodec): ImageShape {
  const { factor } = codecShape(coder);
  const size = { height: height / factor, width: width / factor };
  return coder.kind === "kl"
    ? { ...size, channels: codecShape(coder).latents }
    : { ...size, channels: TOKEN_WIDTH, codebook: coder.config.codebook };
}

/** A hash of an autoencoder's config and weights, without the scale of its latents. */
async function hashOf(opened: OpenCodec): Promise<string> {
  const { scale: _scale, ...unscaled } = opened.config;
  const { shift: _shift, ...config } = { shift: 0, ...unscaled };
  const hash = createHash("sha256").update(canonical(config));
  for await (const [name, { dtype, data }] of arraysOf(opened)) {
    hash.update(`\n${name} ${dtype}\n`);
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex");
}

/** The weights as they are stored, under the names of this library. */
async function* arraysOf(opened: OpenCodec) {
  const { file, keyOf } = opened;
  for (const [name, { tensor }] of codecParams(opened).declared) {
    const array = await readTensor(file.entries.get(keyOf(name))!);
    yield [name, { ...array, shape: tensor.shape as readonly number[] } as NdArray] as const;
  }
}

async function writeAutoencoder(path: string, opened: OpenCodec, hash: string): Promise<void> {
  const arrays: (readonly [string, NdArray])[] = [];
  for await (const each of arraysOf(opened)) arrays.push(each);
  await writeSafetensors(path, arrays, [
    ["format", "pt"],
    [hashKey, hash],
  ]);
}

async function writtenHash(path: string): Promise<string | undefined> {
  if (!(await exists(path))) return undefined;
  const file = await openSafetensorsFile(path);
  await file.close();
  return file.metadata.get(hashKey);
}
