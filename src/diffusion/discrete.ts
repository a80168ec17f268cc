/**
 * Diffusion of discrete tokens, as Paella has it (Rampas et al., 2022): noise replaces tokens by random ones, a network says
 * how probable each token is at each place, and sampling draws all of them at once, time and again, with ever less noise
 * put back.
 */
import { where } from "../engine/functional.ts";
import { type NdArray, ndarray, toNumbers } from "../engine/ndarray.ts";
import { fork, type RandomKey, uniform } from "../engine/random.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Tokens [B, h, w], some of which are replaced by random ones: as many as `share` [B] says, where `uniforms` are below it. */
export function noiseTokens(
  tokens: Tensor,
  { random, uniforms, share }: { random: Tensor; uniforms: Tensor; share: Tensor },
): Tensor {
  return where(isNoise(uniforms, share), random, tokens);
}

/** Which places are noise, [B, h, w] bool. */
export function isNoise(uniforms: Tensor, share: Tensor): Tensor {
  return uniforms.less(share.reshape([share.dim(0), 1, 1]));
}

/**
 * Cross entropy of logits [B, codebook, h, w] with the true tokens [B, h, w], for each place.
 *
 * @param smoothing share of the truth that all tokens have alike (Szegedy et al., 2016)
 */
export function tokenLoss(logits: Tensor, tokens: Tensor, smoothing = 0.1): Tensor {
  const codebook = logits.size(1);
  const logs = logits.transpose([0, 2, 3, 1]).logSoftmax(-1); // [B, h, w, codebook]
  const truth = logs.mul(tokens.oneHot(codebook)).sum(-1);
  return truth.mul(smoothing - 1).sub(logs.mean(-1).mul(smoothing));
}

/** Logits [B, codebook, h, w] of tokens [B, h, w] at a time, which is what the network is told of the noise. */
export type TokenDenoiser = (tokens: NdArray, time: number) => Promise<NdArray>;

/** `scale` times as far from what an unconditional network says (Ho & Salimans, 2022). */
export function guidedTokens(
  told: TokenDenoiser,
  untold: TokenDenoiser,
  scale: number,
): TokenDenoiser {
  return async (tokens, time) => {
    const [wanted, free] = [await told(tokens, time), await untold(tokens, time)];
    const others = toNumbers(free);
    const mixed = toNumbers(wanted).map((value, i) => value * scale + others[i]! * (1 - scale));
    return ndarray("float32", wanted.shape, mixed);
  };
}

/** How noisy it is before each step, and at last behind them. */
export interface TokenLevel {
  /** What the network is told. */
  readonly time: number;
  /** Share of the tokens that are noise. */
  readonly share: number;
}

export interface TokenSampling {
  /** One more than steps. */
  readonly levels: readonly TokenLevel[];
  /** Steps after which noise is put back, from the first. */
  readonly renoiseSteps: number;
  /** Of the first and of the last step; between them it changes evenly. */
  readonly temperature: readonly [first: number, last: number];
  /** Leaves the tokens alone that are about as surprising as is to be expected, of so much probability together. */
  readonly typicalMass?: number | undefined;
  /** Places that keep what they begin with: where it is 0. */
  readonly mask?: Uint8Array | undefined;
}

/** The random choices of a sampling. */
export interface TokenDraws {
  /** A token by its log probabilities, up to a constant. */
  pick(step: number, row: number, logits: Float64Array): number;
  /** A number in [0, 1) for each place. */
  uniforms(step: number): ArrayLike<number>;
}

export interface TokenStep {
  /** What the network was given. */
  readonly given: NdArray<"int64">;
  /** What was drawn. */
  readonly drawn: NdArray<"int64">;
  /** What goes on: with the noise that was put back. */
  readonly tokens: NdArray<"int64">;
}

/** Steps from tokens [B, h, w], which are also the noise that is put back. */
export async function* sampleTokens(
  denoise: TokenDenoiser,
  start: NdArray<"int64">,
  { levels, renoiseSteps, temperature: [first, last], typicalMass, mask }: TokenSampling,
  draws: TokenDraws,
): AsyncGenerator<TokenStep> {
  const steps = levels.length - 1;
  let tokens = start;
  for (let step = 0; step < steps; step++) {
    const given = tokens;
    const logits = await denoise(given, levels[step]!.time);
    const share = steps > 1 ? step / (steps - 1) : 0;
    const temperature = first + (last - first) * share;
    const drawn = drawTokens(logits, (row, values) => {
      if (typicalMass !== undefined) keepTypical(values, typicalMass);
      return draws.pick(
        step,
        row,
        values.map((value) => value / temperature),
      );
    });
    const kept = mask
      ? drawn.data.map((token, i) => (mask[i] ? token : start.data[i]!))
      : drawn.data;
    tokens = ndarray("int64", start.shape, kept);
    if (step < renoiseSteps) {
      const uniforms = draws.uniforms(step);
      const { share: noise } = levels[step + 1]!;
      const noisy = kept.map((token, i) => (uniforms[i]! < noise ? start.data[i]! : token));
      tokens = ndarray("int64", start.shape, noisy);
    }
    yield { given, drawn: ndarray("int64", start.shape, kept), tokens };
  }
}

/** A token of each place, rows in the order (b, h, w). */
function drawTokens(
  logits: NdArray,
  pick: (row: number, values: Float64Array) => number,
): NdArray<"int64"> {
  const [count, codebook, h, w] = logits.shape as [number, number, number, number];
  const { data } = logits as NdArray<"float32">;
  const places = h * w;
  const drawn = new BigInt64Array(count * places);
  const values = new Float64Array(codebook);
  for (let row = 0; row < drawn.length; row++) {
    const [b, place] = [Math.floor(row / places), row % places];
    for (let k = 0; k < codebook; k++) values[k] = data[(b * codebook + k) * places + place]!;
    drawn[row] = BigInt(pick(row, values));
  }
  return ndarray("int64", [count, h, w], drawn);
}

/**
 * Takes all tokens away but those whose surprise is nearest to the entropy, up to a mass of probability (Meister et al.,
 * 2022, "Locally Typical Sampling").
 */
function keepTypical(logits: Float64Array, mass: number): void {
  const logs = logProbabilities(logits);
  const entropy = -logs.reduce((sum, value) => sum + Math.exp(value) * value, 0);
  const apart = logs.map((value) => Math.abs(-value - entropy));
  const order = [...apart.keys()].sort((a, b) => apart[a]! - apart[b]!);
  let gathered = 0;
  const last = order.find((token) => (gathered += Math.exp(logs[token]!)) >= mass);
  const most = last === undefined ? Infinity : apart[last]!;
  for (const [token, value] of apart.entries()) if (value > most) logits[token] = -Infinity;
}

function logProbabilities(logits: Float64Array): Float64Array {
  const most = Math.max(...logits);
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
  return logits.map((value) => value - most - total);
}

/** The token at which the probabilities together exceed a number in [0, 1). */
export function pickByShare(logits: Float64Array, share: number): number {
  const logs = logProbabilities(logits);
  const total = logs.reduce((sum, value) => sum + Math.exp(value), 0);
  let gathered = 0;
  const found = logs.findIndex((value) => (gathered += Math.exp(value)) > share * total);
  return found === -1 ? logs.length - 1 : found;
}

/** Draws that depend on a key alone. */
export function tokenDraws(key: RandomKey, places: number): TokenDraws {
  const drawnAt = new Map<string, Float32Array>();
  const at = (kind: string, step: number) => {
    const name = `${kind} ${step}`;
    let numbers = drawnAt.get(name);
    if (!numbers)
      drawnAt.set(name, (numbers = uniform(fork(fork(key, kind), step), [places]).data));
    return numbers;
  };
  return {
    pick: (step, row, logits) => pickByShare(logits, at("tokens", step)[row]!),
    uniforms: (step) => at("noise", step),
  };
}

/** Levels of the third version: the share of noise falls evenly, and the network is told it. */
export function evenLevels(steps: number, from = 1, to = 0): TokenLevel[] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const share = from + ((to - from) * i) / steps;
    return { time: share, share };
  });
}

/** Levels of the first version: by a quarter of a cosine, of which the network is told how far it is. */
export function cosineLevels(steps: number): TokenLevel[] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const time = i / steps;
    return { time, share: Math.cos((time * Math.PI) / 2) };
  });
}
