/** The recipe for discrete tokens (`discrete.ts`); `recipe.ts` has those for pixels and latents. */
import * as z from "zod";
import { input } from "../../engine/graph/functional.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { fork, integers, type RandomKey, uniform } from "../../engine/random/random.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  cosineLevels,
  evenLevels,
  isNoise,
  noiseTokens,
  noiseWeightedLoss,
  tokenLoss,
} from "./discrete.ts";
import type { NoiseLevel } from "../levels.ts";
import { recipeSchema, timeScale } from "../recipe.ts";

const share = z.number().min(0).max(1);

const tokens = z.strictObject({
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
