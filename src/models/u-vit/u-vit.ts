/**
 * U-ViT, "All are Worth Words: A ViT Backbone for Diffusion Models" (Bao et al., 2023): time, condition and patches are tokens of one
 * sequence, and long skips connect the first half of the blocks to the second, as in a U-Net. Weights have the names of
 * baofff/U-ViT.
 */
import { ShapeError } from "../../engine/errors.ts";
import { concat, full } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { maskBias, selfAttention, type SelfAttentionOptions } from "../../nn/attention.ts";
import { blockScopes, type BlockOptions, runBlocks } from "../../nn/blocks.ts";
import { conv2d } from "../../nn/convolutions.ts";
import {
  type ConditionedInputs,
  embedLabels,
  givenCondition,
  keptText,
  type TextTokens,
} from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { mlp } from "../../nn/mlp.ts";
import { type Norm, norm } from "../../nn/norm.ts";
import { normal, type Params } from "../../nn/params.ts";
import {
  axesOf,
  formatAxes,
  patchCount,
  patchEmbedding,
  patchGrid,
  patchPixels,
  unpatchify,
} from "../../nn/patches.ts";
import { mixedTokens } from "../../nn/token-mixing.ts";
import { checkTimes, timestepEmbedding } from "../../nn/timestep-embedding.ts";
import type { UViTConfig } from "./config.ts";

export type UViTInputs = ConditionedInputs;

/** LayerNorm with PyTorch's defaults. */
const layerNorm: Norm = { kind: "layer", affine: true, epsilon: 1e-5 };
const init = normal(0.02);

/**
 * Predicts the noise and, if it is learned, the variance: [B, channels, H, W] → [B, channels or twice as many, H, W].
 *
 * @throws ShapeError if the image has another size, or the condition does not match the config
 */
export function uViT(
  p: Params,
  inputs: UViTInputs,
  config: UViTConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const { hidden, patch, channels, depth } = config;
  const grid = learnedGrid(inputs.x, config);
  const count = patchCount(grid); // N
  const given = firstTokens(p, inputs, config);
  const total = given.tokens.size(1) + count; // M + N
  const patches = patchEmbedding(p.at("patch_embed"), inputs.x, patch, hidden, { kind: "linear" });
  const positions = p.param("pos_embed", [1, total, hidden], init);
  const bias = given.mask && maskBias(allTokens(given.mask, total));

  const half = (name: string) => blockScopes(p, name, depth / 2);
  let [h] = runBlocks(
    [concat([given.tokens, patches], 1).add(positions)],
    [...half("in_blocks"), p.at("mid_block"), ...half("out_blocks")],
    (block, [tokens], i, opposite) => {
      const mixing = mixedTokens(config.attention, { grid, before: total - count, block: i });
      return [uViTBlock(block, tokens, opposite?.[0], { bias, tokens: mixing }, config)];
    },
    { recompute: options.recompute, longSkips: config.longSkips },
  ); // [B, M + N, C]

  h = norm(p.at("norm"), h, layerNorm).slice(1, total - count, total); // [B, N, C]
  const outputs = config.learnedVariance ? 2 * channels : channels;
  const pixels = patchPixels(patch, grid.length);
  const values = linear(p.at("decoder_pred"), h, pixels * outputs, { init }); // [B, N, values]
  const image = unpatchify(values, grid, patch, "channels-last");
  return config.finalConv ? conv2d(p.at("final_layer"), image, outputs, 3) : image;
}

/** One block: [B, N, C] → [B, N, C]. The tokens of a long skip are added before everything else. */
function uViTBlock(
  p: Params,
  tokens: Tensor,
  skip: Tensor | undefined,
  attended: Pick<SelfAttentionOptions, "bias" | "tokens">,
  { hidden, heads, mlpRatio, qkvBias }: UViTConfig,
): Tensor {
  const x = skip
    ? linear(p.at("skip_linear"), concat([tokens, skip], -1), hidden, { init })
    : tokens;
  const normed = norm(p.at("norm1"), x, layerNorm);
  const h = x.add(selfAttention(p.at("attn"), normed, heads, { qkvBias, ...attended }));
  const inner = Math.trunc(hidden * mlpRatio);
  return h.add(mlp(p.at("mlp"), norm(p.at("norm2"), h, layerNorm), inner, "none"));
}

/** The tokens before the patches, which are label and time or time and text: [B, M, C]. */
function firstTokens(
  p: Params,
  { t, y, mask, drop }: UViTInputs,
  { hidden, timeMlp, condition }: UViTConfig,
): TextTokens {
  checkTimes(t, undefined, "U-ViT");
  const time = embedTime(p.at("time_embed"), t, hidden, timeMlp);
  if (condition.kind === "none") return { tokens: time, mask: undefined };
  const given = givenCondition(y, condition, "U-ViT");
  if (condition.kind === "class") {
    const label = embedLabels(p.at("label_emb"), given, hidden, condition, drop, init); // [B, C]
    return { tokens: concat([label.unsqueeze(1), time], 1), mask: undefined };
  }
  // The original uses an empty text to drop the condition; if the words are trained too, a trained vector replaces it.
  const text = keptText(p.at("context_embed"), given, { mask, drop });
  const tokens = linear(p.at("context_embed"), text.tokens, hidden, { init }); // [B, L, C]
  return { tokens: concat([time, tokens], 1), mask: text.mask };
}

/** [B] → [B, 1, C]: sinusoids, with `layers` through two linear layers that are 4 times as wide between them. */
function embedTime(p: Params, t: Tensor, hidden: number, layers: boolean): Tensor {
  const sinusoids = timestepEmbedding(t, hidden).unsqueeze(1);
  if (!layers) return sinusoids;
  const inner = linear(p.at("0"), sinusoids, 4 * hidden, { init }).silu();
  return linear(p.at("2"), inner, hidden, { init });
}

/** Extends the mask of a text, which follows the time, to all tokens: [B, L] → [B, total]. */
function allTokens(mask: Tensor, total: number): Tensor {
  const ones = (tokens: number) => full([mask.dim(0), tokens], 1, "bool");
  return concat([ones(1), mask, ones(total - 1 - mask.size(1))], 1);
}

function learnedGrid(x: Tensor, { size, patch }: UViTConfig) {
  const axes = axesOf(x);
  if (formatAxes(axes) === formatAxes(size)) return patchGrid(x, patch);
  throw new ShapeError(
    `This U-ViT has learned positions for ${formatAxes(size)} only, but the image is ${formatAxes(axes)}; use the size that it was trained for.`,
  );
}
