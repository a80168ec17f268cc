/**
 * DiT, "Scalable Diffusion Models with Transformers" (Peebles & Xie, 2022), on pictures or their latents: `nn/patch-transformer.ts` over
 * rows and columns.
 *
 * It offers the four block designs that the paper compares, and options of later models: RMSNorm, SwiGLU, rotary positions, norms
 * of queries and keys, and a bottleneck for patches of raw pixels (JiT, Li & He, 2025). Weights have the names of the original
 * code; `diffusersDiTKeys` maps them to those of diffusers.
 */
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { ConditionedInputs } from "../../nn/conditioning.ts";
import { guidedHalves } from "../../nn/guided-halves.ts";
import type { Params } from "../../nn/params.ts";
import { patchTransformer } from "../../nn/patch-transformer.ts";
import type { TokenRoute } from "../../nn/token-route.ts";
import type { DiTConfig } from "./config.ts";

export type DiTInputs = ConditionedInputs;

export interface DiTOptions {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean | undefined;
  /** Patches that some of the blocks do not see, in a training. */
  readonly route?: TokenRoute | undefined;
}

/**
 * Predicts the noise and, if it is learned, the variance: [B, channels, H, W] → [B, channels or twice as many, H, W].
 *
 * @throws ShapeError if the patch does not divide the image, or the condition does not match the config
 */
export function dit(
  p: Params,
  inputs: DiTInputs,
  config: DiTConfig,
  { recompute, route }: DiTOptions = {},
): Tensor {
  return patchTransformer(p, inputs, config, { title: "DiT", recompute, route });
}

/**
 * Classifier-free guidance as in the original code; see `guidedHalves`. Only the first three channels are guided, as for the
 * published figures.
 */
export function ditWithGuidance(
  p: Params,
  { x, ...rest }: DiTInputs,
  config: DiTConfig,
  scale: Tensor,
  guidedChannels = 3,
): Tensor {
  const predict = (twice: Tensor) => dit(p, { ...rest, x: twice }, config);
  return guidedHalves(predict, x, scale, guidedChannels);
}
