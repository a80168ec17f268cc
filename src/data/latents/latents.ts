/** Cached latents of pictures, and how training samples from them. */
import { byteSize, castArray, type NdArray, ndarray, viewOf } from "../../engine/arrays/ndarray.ts";
import { normal, type RandomKey } from "../../engine/random/random.ts";
import type { Layout } from "../loading/batches.ts";

/** The layout of one picture's latents in bytes: [parts · channels, height, width], row-major. */
export interface LatentForm {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  /**
   * "moments" are means followed by log-variances, "mean" are means alone, and "tokens" are indices of codes
   * in one channel.
   */
  readonly parts: "moments" | "mean" | "tokens";
  readonly precision: "float16" | "float32";
}

/** A complete cache, as plain data that can be sent to the loader's thread. */
export interface LatentCache {
  readonly folder: string;
  readonly form: LatentForm;
  /** True if the latents of each picture are followed by those of the mirrored picture. */
  readonly mirrored: boolean;
}

/** How latents become the input of a network. */
export interface LatentDraw {
  readonly form: LatentForm;
  /** A new sample of the encoder's Gaussian at each use, or its mean. */
  readonly posterior: "sample" | "mean";
  /** (z − shift)·scale has about unit variance. */
  readonly scale: number;
  readonly shift: number;
}

/** The number of stored channels. */
export function storedChannels({ channels, parts }: LatentForm): number {
  return parts === "moments" ? 2 * channels : channels;
}

/** Bytes of one picture's latents. */
export function latentBytes(form: LatentForm): number {
  return storedChannels(form) * form.height * form.width * byteSize(form.precision);
}

/** The layout of latents in a batch: of an example with two versions, the requested one. */
export function latentLayout({ form }: LatentCache): Layout {
  const bytes = latentBytes(form);
  return {
    bytes,
    put(versions, flipped, target) {
      target.set(versions.subarray(flipped ? bytes : 0, flipped ? 2 * bytes : bytes));
      return 1;
    },
  };
}

/**
 * Converts stored latents to float32 [B, channels, height, width] as the network takes them. The noise
 * depends only on the key.
 */
export function latentValues(
  bytes: Uint8Array,
  { form, posterior, scale, shift }: LatentDraw,
  key: RandomKey,
): NdArray<"float32"> {
  const stored = storedValues(bytes, form);
  const size = form.channels * form.height * form.width;
  const stride = storedChannels(form) * form.height * form.width;
  const count = stored.length / stride;
  const shape = [count, form.channels, form.height, form.width];
  const noise = posterior === "sample" ? normal(key, shape).data : undefined;
  const values = new Float32Array(count * size);
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor(i / size) * stride + (i % size);
    // Computes mean + exp(logVariance / 2)·noise, as `samplePosterior` of the autoencoder does.
    const z = noise ? stored[at]! + Math.exp(stored[at + size]! / 2) * noise[i]! : stored[at]!;
    values[i] = (z - shift) * scale;
  }
  return ndarray("float32", shape, values);
}

/** Converts stored codes to int64 [B, height, width]. */
export function tokenValues(bytes: Uint8Array, form: LatentForm): NdArray<"int64"> {
  const { height, width } = form;
  const tokens = BigInt64Array.from(storedValues(bytes, form), BigInt);
  return ndarray("int64", [tokens.length / (height * width), height, width], tokens);
}

function storedValues(bytes: Uint8Array, { precision }: LatentForm): Float32Array {
  const count = bytes.byteLength / byteSize(precision);
  const data = viewOf(precision, bytes.buffer as ArrayBuffer, bytes.byteOffset, count);
  return castArray(ndarray(precision, [count], data), "float32").data;
}

/** Progress of a latent cache. */
export type LatentEvent =
  | {
      readonly kind: "latents";
      readonly folder: string;
      /** The number of pictures whose latents are in the cache already. */
      readonly found: number;
      readonly pictures: number;
      /** The reason why existing latents do not fit and are computed again. */
      readonly anew?: string | undefined;
    }
  | {
      readonly kind: "encoding";
      readonly done: number;
      readonly pictures: number;
      readonly secondsLeft: number;
    };
