/** Training on latents: the autoencoder, whose copy goes into the trained folder, and the cache of what it says. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { UsageError } from "../engine/errors.ts";
import type { NdArray } from "../engine/ndarray.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { DataConfig } from "../data/config.ts";
import type { PictureShape } from "../data/dataset.ts";
import { latentCache, type LatentEvent } from "../data/latent-cache-node.ts";
import { canonical } from "../data/latent-folder-node.ts";
import { openData } from "../data/open-node.ts";
import {
  type AutoencoderKLConfig,
  autoencoderKLParams,
  latentFactor,
} from "../models/autoencoder-kl.ts";
import type { OpenAutoencoder } from "../models/autoencoder-kl-checkpoint.ts";
import { openAutoencoder } from "../models/autoencoder-kl-node.ts";
import { modelFiles } from "../models/card.ts";
import { closingOnFailure } from "../weights/closing.ts";
import { exists } from "../weights/files-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../weights/safetensors-node.ts";
import { readTensor } from "../weights/safetensors.ts";
import { pictureShape, type RunConfig } from "./config.ts";
import { type Feed, loadersOf } from "./feed-node.ts";

export interface LatentFeedOptions {
  readonly backend: Backend;
  /** The training's folder. */
  readonly out: string;
  readonly resume: boolean;
  readonly report: (event: LatentEvent) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Of a file of weights: which autoencoder's they are. */
const hashKey = "autoencoder";

/**
 * Opens autoencoder and data; what takes long waits for `begin`.
 *
 * @param step from which on
 * @throws UsageError when there is no autoencoder, or it does not fit the pictures or the training that goes on
 */
export async function latentFeed(
  config: RunConfig,
  latents: NonNullable<RunConfig["latents"]>,
  step: number,
  { out, resume, ...running }: LatentFeedOptions,
): Promise<Feed> {
  const { posterior, precision, cache = join(out, "latents") } = latents;
  const shape = pictureShape(config);
  const opened = await openAutoencoder(latents.autoencoder);
  const loaders = loadersOf(config);
  return closingOnFailure([opened.file, loaders], async () => {
    const { scale = opened.config.scale, shift = opened.config.shift } = latents;
    const autoencoder = { ...opened.config, scale, shift };
    requireFit(shape, autoencoder, latents.autoencoder);
    const hash = await hashOf(opened);
    const copy = join(out, modelFiles.autoencoder);
    const before = resume ? await writtenHash(copy) : undefined;
    if (before !== undefined && before !== hash) {
      throw new UsageError(
        `The training in ${out} began with another autoencoder than ${latents.autoencoder} is now; give latents.autoencoder as it was, such as ${copy}, or begin another training in a new folder.`,
      );
    }
    const data = await openData(config.data, shape);
    const { name, count, classes, captioned } = data;
    await data.close();

    const cached = (pictures: DataConfig, folder: string) =>
      latentCache({
        ...running,
        data: pictures,
        shape,
        encoder: { config: autoencoder, weights: opened.weights, hash },
        parts: posterior === "mean" ? "mean" : "moments",
        precision,
        folder,
        threads: config.training.threads,
      });
    return {
      info: { name, count, classes, captioned },
      image: latentShape(shape, autoencoder),
      autoencoder,
      async begin() {
        if (before === undefined) await writeAutoencoder(copy, opened, hash);
        const own = await cached(config.data, cache);
        const { validation } = config;
        const other =
          own && validation && (await cached(shown(validation, config), join(cache, "validation")));
        if (!own || (validation && !other)) return undefined;
        return {
          loader: await loaders.training(step, own),
          validation: await loaders.validation(other),
          latents: { form: own.form, posterior, scale, shift },
        };
      },
      async close() {
        await loaders.close();
        await opened.file.close();
      },
    };
  });
}

function requireFit(
  { height, width, channels }: PictureShape,
  config: AutoencoderKLConfig,
  path: string,
): void {
  if (config.inputs !== channels || config.outputs !== channels) {
    throw new UsageError(
      `${path} encodes pictures of ${config.inputs} channels and decodes ${config.outputs}, but picture.channels is ${channels}; set it to that number, or give another autoencoder.`,
    );
  }
  const factor = latentFactor(config);
  if (height % factor === 0 && width % factor === 0) return;
  const near = [height, width].map((side) => Math.max(1, Math.round(side / factor)) * factor);
  throw new UsageError(
    `picture.size is ${height}×${width}, but ${path} makes one latent of ${factor}×${factor} pixels; give multiples of ${factor}, such as ${near.join("×")}.`,
  );
}

function latentShape({ height, width }: PictureShape, config: AutoencoderKLConfig) {
  const factor = latentFactor(config);
  return { height: height / factor, width: width / factor, channels: config.latentChannels };
}

/** As many pictures as a validation shows, so that no others are encoded. */
function shown(
  { data, batches }: NonNullable<RunConfig["validation"]>,
  { training }: RunConfig,
): DataConfig {
  const all = batches * training.batch;
  return { ...data, limit: Math.min(data.limit ?? all, all) };
}

/** Tells an autoencoder from every other: its config and all of its weights, but not how its latents are scaled. */
async function hashOf(opened: OpenAutoencoder): Promise<string> {
  const { scale: _scale, shift: _shift, ...config } = opened.config;
  const hash = createHash("sha256").update(canonical(config));
  for await (const [name, { dtype, data }] of arraysOf(opened)) {
    hash.update(`\n${name} ${dtype}\n`);
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex");
}

/** Its weights as they are stored, under diffusers' names. */
async function* arraysOf({ config, file, keyOf }: OpenAutoencoder) {
  for (const [name, { tensor }] of autoencoderKLParams(config).declared) {
    const array = await readTensor(file.entries.get(keyOf(name))!);
    yield [name, { ...array, shape: tensor.shape as readonly number[] } as NdArray] as const;
  }
}

async function writeAutoencoder(
  path: string,
  opened: OpenAutoencoder,
  hash: string,
): Promise<void> {
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
