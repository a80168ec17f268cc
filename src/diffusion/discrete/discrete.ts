/**
 * Diffusion of discrete tokens as in Paella (Rampas et al., 2022): noise replaces tokens by random ones, and a network
 * predicts the probability of each token of the codebook at each place.
 */
import { full, input, where } from "../../engine/graph/functional.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { torchCos } from "../../nn/torch-math.ts";
import { combine } from "../arrays.ts";
import { checkSteps, type NoiseLevel } from "../levels.ts";
import { meanOfImage, perImage } from "../losses.ts";
import { torchLinspace } from "../torch-linspace.ts";
import * as z from "zod";
import { fork, integers, type RandomKey, uniform } from "../../engine/random/random.ts";
import { batch } from "../../engine/graph/shape.ts";
import { recipeSchema, timeScale } from "../recipe.ts";

/** Replaces tokens [B, h, w] by random ones where `noise` (see `isNoise`) is true. */
export function noiseTokens(tokens: Tensor, random: Tensor, noise: Tensor): Tensor {
  return where(noise, random, tokens);
}

/**
 * Chooses the places that are noise, [B, h, w] bool: each with the probability `share` [B] of its image.
 *
 * @param uniforms [B, h, w] in [0, 1)
 */
export function isNoise(uniforms: Tensor, share: Tensor): Tensor {
  return uniforms.less(perImage(share, uniforms));
}

/**
 * Cross entropy of logits [B, codebook, h, w] with the true tokens [B, h, w] at each place, [B, h, w].
 *
 * @param smoothing label smoothing: the share of the target that is uniform over the codebook (Szegedy et al., 2016)
 */
export function tokenLoss(logits: Tensor, tokens: Tensor, smoothing = 0.1): Tensor {
  const logs = logits.transpose([0, 2, 3, 1]).logSoftmax(-1); // [B, h, w, codebook]
  const truth = logs.mul(tokens.oneHot(logits.size(1))).sum(-1);
  return truth.mul(smoothing - 1).sub(logs.mean(-1).mul(smoothing));
}

/**
 * Mean [B] of each image's losses [B, h, w] with smaller weights where there is no noise, as the third Paella was trained:
 * a weight of `lowest` if hardly anything is noise, rising to that of noisy places if everything is.
 */
export function noiseWeightedLoss(
  losses: Tensor,
  { noise, share, lowest = 0.3 }: { noise: Tensor; share: Tensor; lowest?: number },
): Tensor {
  const kept = perImage(share.mul(1 - lowest).add(lowest), losses);
  const weights = where(noise, full([], 1), kept); // [B, h, w]
  return meanOfImage(losses.mul(weights)).div(meanOfImage(weights));
}

/** Predicts logits [B, codebook, h, w] from tokens [B, h, w] of which a share in [0, 1] is noise. */
export type TokenDenoiser = (tokens: NdArray<"int64">, share: number) => Promise<NdArray>;

/**
 * Classifier-free guidance (Ho & Salimans, 2022) of logits; both denoisers run at the same time.
 *
 * @param scale 1 gives the conditional denoiser
 */
export function guidedTokens(
  conditional: TokenDenoiser,
  unconditional: TokenDenoiser,
  scale: number,
): TokenDenoiser {
  if (scale === 1) return conditional;
  return async (tokens, share) => {
    const [positive, negative] = await Promise.all([
      conditional(tokens, share),
      unconditional(tokens, share),
    ]);
    return combine([scale, positive], [1 - scale, negative]);
  };
}

/**
 * Shares of noise before each step and after the last, evenly spaced, as the third Paella is sampled.
 *
 * @param from below 1 for variations of given tokens
 * @throws UsageError unless steps is a whole number of at least 1
 */
export function evenLevels(steps: number, from = 1, to = 0): number[] {
  checkSteps(steps);
  return [...torchLinspace(from, to, steps + 1)];
}

/**
 * Shares of noise along a quarter of a cosine, as the first Paella is sampled.
 *
 * @throws UsageError unless steps is a whole number of at least 1
 */
export function cosineLevels(steps: number): number[] {
  checkSteps(steps);
  return [...torchLinspace(0, 1, steps + 1)].map((time) => Math.max(0, cosineShare(time)));
}

/** The share of noise at a time from 0 (all noise) to 1 (none), rounded as in the networks' training. */
export function cosineShare(time: number): number {
  return torchCos(Math.fround(Math.fround(time) * Math.fround(Math.PI)) / 2);
}

const share = z.number().min(0).max(1);

const tokens = z.strictObject({
  /** Random codes in place of some of the codes of a VQGAN (Paella; Rampas et al., 2022). */
  process: z.literal("tokens"),
  /** Label smoothing: the share of the target that is uniform over the codebook; Paella has 0.1. */
  smoothing: share.default(0),
  /** Weight of places without noise in images with hardly any noise; it rises to 1 with the noise. */
  keptWeight: z.number().gt(0).max(1).default(0.3),
  /** How shares of noise fall during sampling: evenly as in the third Paella, or along a cosine as in the first. */
  levels: z.enum(["even", "cosine"]).default("even"),
});

export type TokenRecipe = z.output<typeof tokens>;

/** The process by which a network is trained and sampled. */
export const anyRecipeSchema = z.discriminatedUnion("process", [recipeSchema, tokens]);

export type AnyRecipe = z.output<typeof anyRecipeSchema>;

/**
 * Loss [B] of a network on tokens [B, h, w], as a graph with additional inputs that `drawTokenExamples` draws: `random` and
 * `uniforms` [B, h, w], and the share of noise `share` [B].
 *
 * @param network tokens [B, h, w] and times [B], 1000 times the share → logits [B, codebook, h, w]
 */
export function tokenRecipeLoss(
  { smoothing, keptWeight }: TokenRecipe,
  truth: Tensor,
  network: (tokens: Tensor, t: Tensor) => Tensor,
): Tensor {
  const random = input("random", truth.shape, truth.dtype);
  const [uniforms, noiseShare] = [input("uniforms", truth.shape), input("share", [batch])];
  const noise = isNoise(uniforms, noiseShare);
  const logits = network(noiseTokens(truth, random, noise), noiseShare.mul(timeScale));
  const losses = tokenLoss(logits, truth, smoothing);
  return noiseWeightedLoss(losses, { noise, share: noiseShare, lowest: keptWeight });
}

/** Draws the loss's inputs `random`, `uniforms` and `share` for tokens of a shape [B, h, w]. */
export function drawTokenExamples(
  key: RandomKey,
  shape: readonly number[],
  codebook: number,
): Readonly<Record<"random" | "uniforms" | "share", NdArray>> {
  return {
    random: integers(fork(key, "random"), 0, codebook, shape),
    uniforms: uniform(fork(key, "noise"), shape),
    share: uniform(fork(key, "share"), shape.slice(0, 1)),
  };
}

/** The levels of sampling: shares of noise before each step and after the last, with the network's times. */
export function tokenLevels(recipe: TokenRecipe, steps: number): NoiseLevel[] {
  const shares = recipe.levels === "even" ? evenLevels(steps) : cosineLevels(steps);
  return shares.map(tokenLevel);
}

/** The level of a share of noise. */
export function tokenLevel(noise: number): NoiseLevel {
  return { time: timeScale * noise, alpha: 1 - noise, sigma: noise };
}
