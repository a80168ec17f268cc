/** Sinusoidal embeddings of times (Vaswani et al., 2017; as in guided-diffusion and DiT). */
import { ndarray } from "../engine/arrays/ndarray.ts";
import { ShapeError } from "../engine/errors.ts";
import { concat, constant } from "../engine/graph/functional.ts";
import { formatShape } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear } from "./linear.ts";
import { normal, type Params } from "./params.ts";
import { torchExp } from "./torch-math.ts";

/**
 * Cosines, then sines, of t·maxPeriod^(−i/half) for i in [0, half): times [...] → [..., size].
 *
 * Each step towards the frequencies is rounded as in the original: near t = 1000 a frequency in float64 would change a model's
 * output by more than its other rounding errors.
 *
 * @param t one time a picture, [B], or one a token, [B, N]
 * @param shift 1 for exponents −i/(half − 1), as networks of diffusers have them by default (`downscale_freq_shift`)
 */
export function timestepEmbedding(
  t: Tensor,
  size: number,
  maxPeriod = 10_000,
  shift: 0 | 1 = 0,
): Tensor {
  const half = Math.floor(size / 2);
  const rate = Math.fround(-Math.log(maxPeriod));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    torchExp(Math.fround(Math.fround(rate * i) / (half - shift))),
  );
  const angles = t.unsqueeze(-1).mul(constant(ndarray("float32", [1, half], frequencies))); // [..., half]
  return padded(concat([angles.cos(), angles.sin()], -1), size);
}

/**
 * The same sinusoids as if they had been computed in float64, which no GPU has: times [...] → [..., size]. Wan was trained with
 * these.
 *
 * A time and a frequency are each a sum of two numbers, the first with so few bits that the product of the first ones is exact. Whole
 * turns are taken from this product (Cody & Waite, 1980), and what remains is small.
 *
 * @param t times in [0, 2000)
 * @param size an even number
 */
export function preciseTimestepEmbedding(t: Tensor, size: number, maxPeriod = 10_000): Tensor {
  const half = size / 2;
  const frequencies = Array.from({ length: half }, (_, i) => maxPeriod ** (-i / half));
  const table = (f: (frequency: number) => number) =>
    constant(ndarray("float32", [1, half], frequencies.map(f)));
  const coarse = (frequency: number) => withBits(frequency, 11);
  const times = t.unsqueeze(-1); // [..., 1]
  const quarters = times.mul(4).round().div(4);
  const product = quarters.mul(table(coarse)); // [..., half], exact
  const turns = product.mul(1 / (2 * Math.PI)).round();
  const reduced = product.sub(turns.mul(TURN_HIGH)).sub(turns.mul(2 * Math.PI - TURN_HIGH));
  const rest = quarters
    .mul(table((frequency) => frequency - coarse(frequency)))
    .add(times.sub(quarters).mul(table((frequency) => frequency)));
  const angles = reduced.add(rest);
  return concat([angles.cos(), angles.sin()], -1);
}

/** The first bits of a positive number. */
function withBits(x: number, bits: number): number {
  const unit = 2 ** (Math.floor(Math.log2(x)) + 1 - bits);
  return Math.round(x / unit) * unit;
}

/** 2π in so few bits that its product with a number of turns is exact. */
const TURN_HIGH = withBits(2 * Math.PI, 15);

/**
 * The embedding of Paella's noise ratios: sines, then cosines, of 10⁴·ratio·10^(−4i/(half − 1)).
 *
 * With arguments this large every rounding to float32 matters.
 *
 * @param ratio share of tokens that are noise, [B], in [0, 1]
 * @param size at least 4
 * @returns [B, size]
 */
export function noiseRatioEmbedding(ratio: Tensor, size: number): Tensor {
  const half = Math.floor(size / 2);
  const rate = Math.fround(-Math.log(10_000) / (half - 1));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    torchExp(Math.fround(rate * i)),
  );
  const table = constant(ndarray("float32", [1, half], frequencies));
  const angles = ratio.mul(10_000).unsqueeze(-1).mul(table); // [B, half]
  return padded(concat([angles.sin(), angles.cos()], -1), size);
}

/**
 * Times [B] or [B, N] → [..., hidden]: the sinusoids through two linear layers with DiT's names `mlp.0` and `mlp.2`.
 *
 * @param frequencies channels of the sinusoids
 * @param shift as for `timestepEmbedding`
 */
export function embedTime(
  p: Params,
  t: Tensor,
  hidden: number,
  frequencies = 256,
  shift: 0 | 1 = 0,
): Tensor {
  const sinusoids = timestepEmbedding(t, frequencies, 10_000, shift);
  return embedVector(p.at("mlp"), ["0", "2"], sinusoids, hidden);
}

export interface EmbeddingOptions {
  /** The function between the two layers; SiLU unless given. */
  readonly activate?: (inner: Tensor) => Tensor;
  /** Channels between the two layers; `hidden` unless given. */
  readonly inner?: number;
  /** True if the layers have a bias; true unless given. */
  readonly bias?: boolean;
}

/** Two linear layers by their names, with a SiLU between them: [..., C] → [..., hidden]. */
export function embedVector(
  p: Params,
  [first, second]: readonly [string, string],
  x: Tensor,
  hidden: number,
  { activate = (y) => y.silu(), inner = hidden, bias = true }: EmbeddingOptions = {},
): Tensor {
  const options = { init: normal(0.02), bias };
  return linear(p.at(second), activate(linear(p.at(first), x, inner, options)), hidden, options);
}

/**
 * Checks that times are one a picture, or one for each of its tokens.
 *
 * @param tokens number of tokens, where the network takes a time for each of them
 * @param network name of the network in messages
 * @throws ShapeError when they are neither
 */
export function checkTimes(t: Tensor, tokens: number | undefined, network: string): void {
  if (t.rank === 1 || (t.rank === 2 && t.shape[1] === tokens)) return;
  throw new ShapeError(
    `The times of this ${network} are ${formatShape(t.shape)}; give one a picture, [B]${tokens === undefined ? "" : `, or one a patch, [B, ${tokens}]`}.`,
  );
}

/** An embedding with a zero behind it where the size is odd. */
function padded(embedding: Tensor, size: number): Tensor {
  if (size % 2 === 0) return embedding;
  return embedding.pad(embedding.shape.map((_, axis) => [0, axis === embedding.rank - 1 ? 1 : 0]));
}
