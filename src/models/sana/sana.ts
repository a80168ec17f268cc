/**
 * Sana (Xie et al., 2024): a DiT whose cost grows in proportion to the number of patches. Its self-attention is linear, and a
 * convolution between neighbouring patches inside each feed-forward layer makes up for what linear attention does not see of details.
 *
 * Weights have the names of diffusers.
 */
import type { Tensor } from "../../engine/graph/tensor.ts";
import { crossAttention, linearAttention, maskBias } from "../../nn/attention.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import { givenCondition, keptText } from "../../nn/conditioning.ts";
import { conv2d } from "../../nn/convolutions.ts";
import { linear } from "../../nn/linear.ts";
import { adaptiveBranch } from "../../nn/modulation.ts";
import { norm } from "../../nn/norm.ts";
import { type Params, zero } from "../../nn/params.ts";
import { type Axes, patchEmbedding, patchGrid } from "../../nn/patches.ts";
import {
  embedNumber,
  modulatedOutput,
  projectCaption,
  scaledPositions,
  tableModulation,
} from "../../nn/shared-modulation.ts";
import type { BlockOptions, NetworkInputs } from "../family.ts";
import type { SanaConfig } from "./config.ts";

/**
 * Predicts the velocity: [B, channels, h, w] → [B, channels, h, w], or twice the channels with a learned variance.
 *
 * @param inputs `x` and `t` [B]; `y` [B, L, width], the text, and its `mask` [B, L] bool, false for padding; `drop` [B] bool, true for
 *   rows whose text is replaced by a trained vector
 * @throws ShapeError if the patch does not divide the latents, or the text is missing
 */
export function sana(
  p: Params,
  { x, t, y, mask, drop }: NetworkInputs,
  config: SanaConfig,
  options: BlockOptions = {},
): Tensor {
  const { hidden, patch, depth, channels, learnedVariance } = config;
  const text = keptText(p, givenCondition(y, config.condition, "Sana"), { mask, drop });
  const grid = patchGrid(x, patch);
  const time = embedNumber(p.at("time_embed.emb.timestep_embedder"), t, hidden); // [B, C]
  const shared = linear(p.at("time_embed.linear"), time.silu(), 6 * hidden); // [B, 6·C]
  const caption = projectCaption(p.at("caption_projection"), text.tokens, hidden);
  const context = {
    shared,
    text: norm(p.at("caption_norm"), caption, { kind: "rms", affine: true, epsilon: 1e-5 }), // [B, L, C]
    bias: text.mask && maskBias(text.mask), // [B, 1, 1, L]
    grid,
  };
  const patches = patchEmbedding(p.at("patch_embed"), x, patch, hidden, { kind: "linear" });
  const { positions, size } = config;
  const placed =
    positions === null
      ? patches
      : patches.add(scaledPositions(grid, size[0] / patch, positions, hidden));
  const [h] = runBlocks(
    [placed],
    blockScopes(p, "transformer_blocks", depth),
    (block, [tokens]) => [sanaBlock(block, tokens, context, config)],
    options,
  ); // [B, N, C]
  const outputs = (learnedVariance ? 2 : 1) * channels;
  return modulatedOutput(p, h, time, { grid, patch, outputs });
}

/** The inputs that all blocks share. */
interface Context {
  /** The modulation from the time, [B, 6·C]. */
  readonly shared: Tensor;
  /** [B, L, C] */
  readonly text: Tensor;
  readonly bias: Tensor | undefined;
  /** Rows and columns of patches. */
  readonly grid: Axes;
}

/** One block: [B, N, C] → [B, N, C]. Self-attention and feed-forward are modulated, and cross-attention is not. */
function sanaBlock(
  p: Params,
  x: Tensor,
  { shared, text, bias, grid }: Context,
  { heads, textHeads, textHeadSize, attentionBias, affineNorms, epsilon, mlpRatio }: SanaConfig,
): Tensor {
  const [shift1, scale1, gate1, shift2, scale2, gate2] = tableModulation(p, shared, 6) as Six;
  const style = { kind: "layer", epsilon } as const;
  const toPatches = adaptiveBranch(p.at("norm1"), { ...style, affine: false }, [
    shift1,
    scale1,
    gate1,
  ]);
  const onward = adaptiveBranch(p.at("norm2"), { ...style, affine: affineNorms }, [
    shift2,
    scale2,
    gate2,
  ]);
  const attended = linearAttention(p.at("attn1"), toPatches.norm(x), {
    heads,
    qkvBias: attentionBias,
  });
  let h = x.add(toPatches.gate(attended));
  // The text has no influence initially.
  const toText = { heads: textHeads, headSize: textHeadSize, outputInit: zero };
  h = h.add(crossAttention(p.at("attn2"), h, text, { ...toText, ...(bias && { bias }) }));
  return h.add(onward.gate(mixFeedForward(p.at("ff"), onward.norm(h), grid, mlpRatio)));
}

type Six = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

/**
 * The mix-FFN of the paper (section 2.2): a gated feed-forward layer with a depthwise convolution over neighbouring patches inside,
 * [B, N, C] → [B, N, C].
 */
function mixFeedForward(p: Params, x: Tensor, [rows, columns]: Axes, ratio: number): Tensor {
  const width = x.size(-1);
  const inner = 2 * Math.trunc(ratio * width);
  const map = x.swapAxes(1, 2).reshape([x.dim(0), width, rows!, columns!]); // [B, C, h, w]
  const raised = conv2d(p.at("conv_inverted"), map, inner, 1).silu();
  const mixed = conv2d(p.at("conv_depth"), raised, inner, 3, { groups: inner });
  const [value, gate] = mixed.split(2, 1) as [Tensor, Tensor];
  const lowered = conv2d(p.at("conv_point"), value.mul(gate.silu()), width, 1, { bias: false });
  return lowered.reshape([x.dim(0), width, x.dim(1)]).swapAxes(1, 2);
}
