/** Latents of pictures as a cache holds them: what an encoder said of each, from which training draws. */
import { float16ToFloat32 } from "../../engine/arrays/convert.ts";
import { byteSize } from "../../engine/arrays/dtype.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { normal, type RandomKey } from "../../engine/random/random.ts";
import type { Layout } from "../loading/batches.ts";

/** How the latents of one picture lie in bytes: [parts · channels, height, width], row-major. */
export interface LatentForm {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  /** Means with log-variances behind them, means alone, or the numbers of codes, in one channel. */
  readonly parts: "moments" | "mean" | "tokens";
  readonly precision: "float16" | "float32";
}

/** A cache that is whole; plain data, for the loader's thread. */
export interface LatentCache {
  readonly folder: string;
  readonly form: LatentForm;
  /** Whether it holds those of the mirrored picture too, behind those of the picture. */
  readonly mirrored: boolean;
}

/** How latents become what a network sees. */
export interface LatentDraw {
  readonly form: LatentForm;
  /** A sample of the encoder's Gaussian each time, or its mean. */
  readonly posterior: "sample" | "mean";
  /** (z − shift)·scale has about unit variance. */
  readonly scale: number;
  readonly shift: number;
}

/** Channels that are stored. */
export function storedChannels({ channels, parts }: LatentForm): number {
  return parts === "moments" ? 2 * channels : channels;
}

/** Bytes of one picture's latents. */
export function latentBytes(form: LatentForm): number {
  return storedChannels(form) * form.height * form.width * byteSize(form.precision);
}

/** Of an example of a cache, the version that is asked for. */
export function latentLayout({ form }: LatentCache): Layout {
  const bytes = latentBytes(form);
  return {
    bytes,
    put: (versions, flipped, target) =>
      target.set(versions.subarray(flipped ? bytes : 0, flipped ? 2 * bytes : bytes)),
  };
}

/** Stored latents → float32 [B, channels, height, width] as the network sees them; noise depends on the key alone. */
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
    // mean + exp(logVariance / 2)·noise, as `samplePosterior` of the autoencoder.
    const z = noise ? stored[at]! + Math.exp(stored[at + size]! / 2) * noise[i]! : stored[at]!;
    values[i] = (z - shift) * scale;
  }
  return ndarray("float32", shape, values);
}

/** Stored tokens → int64 [B, height, width]. */
export function tokenValues(bytes: Uint8Array, form: LatentForm): NdArray<"int64"> {
  const { height, width } = form;
  const tokens = BigInt64Array.from(storedValues(bytes, form), BigInt);
  return ndarray("int64", [tokens.length / (height * width), height, width], tokens);
}

function storedValues(bytes: Uint8Array, { precision }: LatentForm): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (precision === "float32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const values = new Float32Array(byteLength / 2);
  float16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2), values);
  return values;
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
