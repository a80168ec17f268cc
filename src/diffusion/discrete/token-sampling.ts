/**
 * Sampling of discrete tokens (Rampas et al., 2022): all places are drawn at once in every step, and less and less noise is
 * put back in between. Any denoiser that predicts logits can be sampled.
 */
import { PatchwiseError, UsageError } from "../../engine/errors.ts";
import { castArray, type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, integers, type RandomKey, uniform } from "../../engine/random/random.ts";
import type { TokenDenoiser } from "./discrete.ts";
import { torchLinspace } from "../torch-linspace.ts";

export interface TokenSampling {
  /** Number of tokens: tokens are whole numbers in [0, codebook). */
  readonly codebook: number;
  /** Shares of noise in [0, 1] before each step and after the last; at least two, not rising. */
  readonly levels: readonly number[];
  /** Number of steps, from the first, after which noise is put back; all but the last unless given. */
  readonly renoiseSteps?: number | undefined;
  /** What is put back: the noise of the start (the default), or the tokens before the step. */
  readonly renoiseWith?: "start" | "previous" | undefined;
  /** Temperature of the first and the last step, linear in between; 1 unless given, and 0 takes the most probable tokens. */
  readonly temperature?: readonly [first: number, last: number] | undefined;
  readonly typical?: Typical | undefined;
  readonly known?: KnownTokens | undefined;
  /** Ends sampling before the next run of the network, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Draws only tokens whose surprise is close to the expected one (Meister et al., 2022, "Locally Typical Sampling"). */
export interface Typical {
  /** The probability mass to keep, in (0, 1]; the fewest typical tokens that reach it are kept. */
  readonly mass: number;
  /** The least number of tokens to keep; 1 unless given. */
  readonly least?: number | undefined;
}

/** Tokens to start from, for variations (the first level is below 1) or inpainting (with a mask). */
export interface KnownTokens {
  /** [B, h, w] */
  readonly tokens: NdArray<"int64">;
  /** Mask of the same shape: places where it is 0 keep their tokens; all are drawn unless given. */
  readonly mask?: NdArray | undefined;
}

/** The random draws of a sampling run. */
export interface TokenDraws {
  /** Draws a token for a place by its logits, of which some may be −∞; rows are in the order (b, h, w). */
  pick(step: number, row: number, logits: Float64Array): number;
  /** A number in [0, 1) for each row; those of "start" add noise to known tokens. */
  uniforms(step: number | "start"): ArrayLike<number>;
}

/** The state of sampling after a step. */
export interface TokenStep {
  /** Number of steps that are done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** The network's input, [B, h, w]. */
  readonly given: NdArray<"int64">;
  /** The tokens that were drawn, for a preview. */
  readonly drawn: NdArray<"int64">;
  /** The drawn tokens with the noise that was put back: the input of the next step. */
  readonly tokens: NdArray<"int64">;
}

/**
 * Takes random tokens [B, h, w] through all levels; yields after each step and returns the tokens at the last level.
 *
 * @example
 * const draws = tokenDraws(seeds.map((seed) => randomKey(seed)), [16, 16]);
 * const sampling = { codebook: 8192, levels: evenLevels(8), temperature: [1, 0.2] };
 * for await (const { drawn } of sampleTokens(denoise, draws.noise(8192), sampling, draws)) show(drawn);
 * @throws UsageError if settings are out of range, tokens are outside the codebook, or the network has another codebook
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
    // A tiny temperature instead of 0 makes the largest logit win by far.
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

/** Restores the known tokens where the mask is 0. */
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

/** Replaces tokens by those of `noise` where a uniform number is below the share. */
function noised(
  tokens: NdArray<"int64">,
  noise: NdArray<"int64">,
  uniforms: ArrayLike<number>,
  share: number,
): NdArray<"int64"> {
  const data = tokens.data.map((token, i) => (uniforms[i]! < share ? noise.data[i]! : token));
  return { ...tokens, data };
}

/** Number of places whose float32 values fill a cache line. */
const TILE = 16;

/** Draws a token for each place by its logits [B, codebook, h, w]; `pick` may overwrite its copy of them. */
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
        const token = pick(row, tile[i]!);
        // Logits that are NaN or infinite have no probabilities.
        if (!(token >= 0)) {
          throw new PatchwiseError(
            "The model predicted logits that are NaN or infinite, so there is nothing to draw; its weights may be damaged.",
          );
        }
        drawn[row] = BigInt(token);
      }
    }
  }
  return ndarray("int64", [count, h, w], drawn);
}

/** Sets the logits of all but typical tokens to −∞. */
function keepTypical(logits: Float64Array, { mass, least = 1 }: Typical): void {
  const chances = probabilities(logits);
  let entropy = 0;
  // Impossible tokens add nothing, since 0·log 0 is 0.
  for (const chance of chances) if (chance > 0) entropy -= chance * Math.log(chance);
  const apart = chances.map((chance) => Math.abs(-Math.log(chance) - entropy));
  const sorted = apart.toSorted();
  const reached = (bound: number) => {
    let sum = 0;
    for (let k = 0; k < apart.length; k++) if (apart[k]! <= bound) sum += chances[k]!;
    return sum >= mass;
  };
  // Binary search for the least distance whose tokens reach the mass.
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

/** The token at which the cumulative probability exceeds a share in [0, 1). */
export function pickByShare(logits: Float64Array, share: number): number {
  const chances = probabilities(logits);
  let gathered = 0;
  const found = chances.findIndex((chance) => (gathered += chance) > share);
  return found === -1 ? chances.findLastIndex((chance) => chance > 0) : found;
}

/** Draws by one key for each image, and the noise to start with. */
export interface KeyedTokenDraws extends TokenDraws {
  /** Uniformly random tokens [B, h, w]. */
  noise(codebook: number): NdArray<"int64">;
}

/** Draws by one key for each image: they depend on the image's key and the step only. */
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
      `levels must be at least two shares of noise from 1 to 0 that do not rise, got ${levels.join(", ")}.`,
    );
  }
  if (!Number.isInteger(renoiseSteps) || renoiseSteps < 0) {
    throw new UsageError(`renoiseSteps must be a whole number of at least 0, got ${renoiseSteps}.`);
  }
  const cold = temperature.find((value) => !(value >= 0 && value < Infinity));
  if (cold !== undefined) {
    throw new UsageError(`temperature must be two numbers of at least 0, got ${cold}.`);
  }
  if (typical && !(typical.mass > 0 && typical.mass <= 1)) {
    throw new UsageError(`typical.mass must be a number above 0 and up to 1, got ${typical.mass}.`);
  }
  for (const { shape } of [known?.tokens ?? noise, known?.mask ?? noise]) {
    if (shape.join() === noise.shape.join()) continue;
    throw new UsageError(
      `Known tokens and their mask must have the shape [${noise.shape.join(", ")}] of the noise, got [${shape.join(", ")}].`,
    );
  }
  for (const { data } of known ? [noise, known.tokens] : [noise]) {
    const outside = data.find((token) => token < 0n || token >= BigInt(codebook));
    if (outside === undefined) continue;
    throw new UsageError(
      `Tokens must be from 0 to ${codebook - 1}, got ${outside}; give those of the VQGAN that the network was trained with.`,
    );
  }
}

function checkLogits({ shape }: NdArray, tokens: NdArray, codebook: number): void {
  const [count, ...space] = tokens.shape;
  if (shape.join() === [count, codebook, ...space].join()) return;
  throw new UsageError(
    `The network predicts logits of shape [${shape.join(", ")}] from tokens [${tokens.shape.join(", ")}], which does not fit a codebook of ${codebook}; give a network that was trained with this VQGAN.`,
  );
}
