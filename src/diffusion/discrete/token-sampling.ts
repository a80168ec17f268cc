/**
 * Sampling of discrete tokens (Rampas et al., 2022): all places are drawn at once, time and again, and ever less noise is
 * put back in between. Whatever says logits can be sampled so.
 */
import { UsageError } from "../../engine/errors.ts";
import { castArray, type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, integers, type RandomKey, uniform } from "../../engine/random/random.ts";
import type { TokenDenoiser } from "./discrete.ts";
import { torchLinspace } from "../torch-linspace.ts";

export interface TokenSampling {
  /** Tokens are whole numbers from 0 up to, but not including, it. */
  readonly codebook: number;
  /** Share of noise before each step and behind the last one, in [0, 1]; at least two, none larger than the one before. */
  readonly levels: readonly number[];
  /** Steps after which noise is put back, from the first; all but the last unless given. */
  readonly renoiseSteps?: number | undefined;
  /** What is put back: the noise of the start unless given, or what the step was given. */
  readonly renoiseWith?: "start" | "previous" | undefined;
  /** Of the first and of the last step, evenly in between; 1 unless given, and 0 takes the most probable tokens. */
  readonly temperature?: readonly [first: number, last: number] | undefined;
  readonly typical?: Typical | undefined;
  readonly known?: KnownTokens | undefined;
  /** Ends sampling before the next question to the network, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Draws only tokens about as surprising as is to be expected (Meister et al., 2022, "Locally Typical Sampling"). */
export interface Typical {
  /** Their probability together, in (0, 1]: no more tokens than reach it. */
  readonly mass: number;
  /** So many at least; 1 unless given. */
  readonly least?: number | undefined;
}

/** Tokens to start from: variations of them, where the first level is less than 1, or with a mask inpainting. */
export interface KnownTokens {
  /** [B, h, w] */
  readonly tokens: NdArray<"int64">;
  /** Of their shape: places where it is 0 keep their tokens; all are drawn unless given. */
  readonly mask?: NdArray | undefined;
}

/** The random choices of a sampling. */
export interface TokenDraws {
  /** A token by logits, of which some may be −∞, for a place: rows are in the order (b, h, w). */
  pick(step: number, row: number, logits: Float64Array): number;
  /** A number in [0, 1) for each row; "start" is what known tokens are noised by. */
  uniforms(step: number | "start"): ArrayLike<number>;
}

/** Where sampling stands after a step. */
export interface TokenStep {
  /** Steps done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** What the network was given, [B, h, w]. */
  readonly given: NdArray<"int64">;
  /** What was drawn: a preview. */
  readonly drawn: NdArray<"int64">;
  /** What goes on: with the noise that was put back. */
  readonly tokens: NdArray<"int64">;
}

/**
 * Takes random tokens [B, h, w] through all levels; yields after each step and returns the tokens at the last level.
 *
 * @example
 * const draws = tokenDraws(seeds.map((seed) => randomKey(seed)), [16, 16]);
 * const sampling = { codebook: 8192, levels: evenLevels(8), temperature: [1, 0.2] };
 * for await (const { drawn } of sampleTokens(denoise, draws.noise(8192), sampling, draws)) show(drawn);
 * @throws UsageError when settings are out of range, tokens outside the codebook, or the network has another one
 */
export async function* sampleTokens(
  denoise: TokenDenoiser,
  noise: NdArray<"int64">,
  sampling: TokenSampling,
  draws: TokenDraws,
): AsyncGenerator<TokenStep, NdArray<"int64">> {
  checkSampling(sampling, noise);
  const { codebook, levels, known, typical, temperature = [1, 1] } = sampling;
  const steps = levels.length - 1;
  const { renoiseSteps = steps - 1, renoiseWith = "start", signal } = sampling;
  const temperatures = torchLinspace(...temperature, steps);
  const keep = keeper(known);
  let tokens = noise;
  if (known) tokens = keep(noised(known.tokens, noise, draws.uniforms("start"), levels[0]!));
  for (let step = 0; step < steps; step++) {
    signal?.throwIfAborted();
    const given = tokens;
    const logits = await denoise(given, levels[step]!);
    checkLogits(logits, given, codebook);
    // At no temperature the largest logit is infinitely far ahead.
    const warmth = Math.max(temperatures[step]!, 1e-10);
    const drawn = keep(
      drawTokens(logits, (row, values) => {
        if (typical) keepTypical(values, typical);
        for (let k = 0; k < codebook; k++) values[k]! /= warmth;
        return draws.pick(step, row, values);
      }),
    );
    const back = renoiseWith === "start" ? noise : given;
    tokens =
      step < renoiseSteps
        ? keep(noised(drawn, back, draws.uniforms(step), levels[step + 1]!))
        : drawn;
    yield { step: step + 1, steps, given, drawn, tokens };
  }
  return tokens;
}

/** Puts known tokens where the mask lets none be drawn. */
function keeper(known: KnownTokens | undefined) {
  const mask = known?.mask;
  return (tokens: NdArray<"int64">): NdArray<"int64"> => {
    if (!mask) return tokens;
    const data = tokens.data.map((token, i) =>
      Number(mask.data[i]) === 0 ? known.tokens.data[i]! : token,
    );
    return { ...tokens, data };
  };
}

/** Tokens with those of `noise` where a uniform number is below the share. */
function noised(
  tokens: NdArray<"int64">,
  noise: NdArray<"int64">,
  uniforms: ArrayLike<number>,
  share: number,
): NdArray<"int64"> {
  const data = tokens.data.map((token, i) => (uniforms[i]! < share ? noise.data[i]! : token));
  return { ...tokens, data };
}

/** As many places as have one number in a cache line. */
const TILE = 16;

/** A token of each place by its logits [B, codebook, h, w], which `pick` may change. */
function drawTokens(
  logits: NdArray,
  pick: (row: number, values: Float64Array) => number,
): NdArray<"int64"> {
  const [count, codebook, h, w] = logits.shape as [number, number, number, number];
  const { data } = castArray(logits, "float32");
  const places = h * w;
  const drawn = new BigInt64Array(count * places);
  const tile = Array.from({ length: TILE }, () => new Float64Array(codebook));
  for (let image = 0; image < count; image++) {
    for (let from = 0; from < places; from += TILE) {
      const inside = Math.min(TILE, places - from);
      for (let k = 0; k < codebook; k++) {
        const first = (image * codebook + k) * places + from;
        for (let i = 0; i < inside; i++) tile[i]![k] = data[first + i]!;
      }
      for (let i = 0; i < inside; i++) {
        const row = image * places + from + i;
        drawn[row] = BigInt(pick(row, tile[i]!));
      }
    }
  }
  return ndarray("int64", [count, h, w], drawn);
}

/** Sets the logits of all but typical tokens to −∞. */
function keepTypical(logits: Float64Array, { mass, least = 1 }: Typical): void {
  const chances = probabilities(logits);
  let entropy = 0;
  // An impossible token adds nothing: 0·log 0 is 0.
  for (const chance of chances) if (chance > 0) entropy -= chance * Math.log(chance);
  const apart = chances.map((chance) => Math.abs(-Math.log(chance) - entropy));
  const sorted = apart.toSorted();
  const reached = (bound: number) => {
    let sum = 0;
    for (let k = 0; k < apart.length; k++) if (apart[k]! <= bound) sum += chances[k]!;
    return sum >= mass;
  };
  // The least distance within which there is enough.
  let [low, high] = [Math.min(least, sorted.length) - 1, sorted.length - 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (reached(sorted[middle]!)) high = middle;
    else low = middle + 1;
  }
  for (let k = 0; k < apart.length; k++) if (apart[k]! > sorted[low]!) logits[k] = -Infinity;
}

function probabilities(logits: Float64Array): Float64Array {
  let [most, sum] = [-Infinity, 0];
  for (const value of logits) most = Math.max(most, value);
  const chances = logits.map((value) => Math.exp(value - most));
  for (const chance of chances) sum += chance;
  return chances.map((chance) => chance / sum);
}

/** The token at which the probabilities together exceed a share in [0, 1). */
export function pickByShare(logits: Float64Array, share: number): number {
  const chances = probabilities(logits);
  let gathered = 0;
  const found = chances.findIndex((chance) => (gathered += chance) > share);
  return found === -1 ? chances.findLastIndex((chance) => chance > 0) : found;
}

/** Draws of which those of an image depend on its key alone, and the noise to start with. */
export interface KeyedTokenDraws extends TokenDraws {
  /** Tokens [B, h, w] of which all are equally likely. */
  noise(codebook: number): NdArray<"int64">;
}

/** One key for each image: what is drawn for it depends on its key and the step, and on nothing else. */
export function tokenDraws(
  keys: readonly RandomKey[],
  [h, w]: readonly [height: number, width: number],
): KeyedTokenDraws {
  const places = h * w;
  const kept = new Map<string, Float32Array>();
  const numbers = (kind: string, step: number | "start") => {
    const name = `${kind} ${step}`;
    const known = kept.get(name);
    if (known) return known;
    const drawn = new Float32Array(keys.length * places);
    for (const [i, key] of keys.entries()) {
      drawn.set(uniform(fork(fork(key, kind), step), [places]).data, i * places);
    }
    kept.set(name, drawn);
    return drawn;
  };
  return {
    noise: (codebook) => {
      const drawn = new BigInt64Array(keys.length * places);
      for (const [i, key] of keys.entries()) {
        drawn.set(integers(fork(key, "start"), 0, codebook, [places]).data, i * places);
      }
      return ndarray("int64", [keys.length, h, w], drawn);
    },
    pick: (step, row, logits) => pickByShare(logits, numbers("token", step)[row]!),
    uniforms: (step) => numbers("noise", step),
  };
}

function checkSampling(sampling: TokenSampling, noise: NdArray<"int64">): void {
  const { codebook, levels, renoiseSteps = 0, temperature = [1, 1], typical, known } = sampling;
  const range = (share: number, i: number) => share >= 0 && share <= (levels[i - 1] ?? 1);
  if (levels.length < 2 || !levels.every(range)) {
    throw new UsageError(
      `Tokens were to be sampled at shares of noise of ${levels.join(", ")}; give at least two from 1 to 0 that do not rise.`,
    );
  }
  if (!Number.isInteger(renoiseSteps) || renoiseSteps < 0) {
    throw new UsageError(
      `Noise was to be put back after ${renoiseSteps} steps; give a whole number, 0 for never.`,
    );
  }
  const cold = temperature.find((value) => !(value >= 0 && value < Infinity));
  if (cold !== undefined) {
    throw new UsageError(`The temperature is ${cold}; give a number of at least 0.`);
  }
  if (typical && !(typical.mass > 0 && typical.mass <= 1)) {
    throw new UsageError(
      `Typical tokens were to have the probability ${typical.mass}; give a number above 0, up to 1.`,
    );
  }
  for (const { shape } of [known?.tokens ?? noise, known?.mask ?? noise]) {
    if (shape.join() === noise.shape.join()) continue;
    throw new UsageError(
      `Noise of shape [${noise.shape.join(", ")}] meets known tokens, or a mask, of shape [${shape.join(", ")}]; both must be of one shape.`,
    );
  }
  for (const { data } of known ? [noise, known.tokens] : [noise]) {
    const outside = data.find((token) => token < 0n || token >= BigInt(codebook));
    if (outside === undefined) continue;
    throw new UsageError(
      `There is a token ${outside}, but the codebook has ${codebook}; give tokens from 0 to ${codebook - 1}, of the tokenizer that the network was trained with.`,
    );
  }
}

function checkLogits({ shape }: NdArray, tokens: NdArray, codebook: number): void {
  const [count, ...space] = tokens.shape;
  if (shape.join() === [count, codebook, ...space].join()) return;
  throw new UsageError(
    `The network says logits of shape [${shape.join(", ")}] of tokens [${tokens.shape.join(", ")}] with a codebook of ${codebook}; take a network that was trained on this tokenizer.`,
  );
}
