/**
 * The U-Net of denoising diffusion (Ho et al., 2020) as in "Diffusion Models Beat GANs" (Dhariwal & Nichol, 2021): residual blocks,
 * which time and class modulate, at decreasing and then increasing resolutions, with attention at the low ones. Weights have the
 * names of openai/guided-diffusion.
 */
import { recompute } from "../../engine/graph/recompute.ts";
import { ShapeError } from "../../engine/errors.ts";
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mixTokens } from "../../nn/attention.ts";
import type { BlockOptions } from "../../nn/blocks.ts";
import { conv2d } from "../../nn/convolutions.ts";
import { groupNorm } from "../../nn/norm.ts";
import {
  type ConditionedInputs,
  embedLabels,
  givenCondition,
  keptText,
  poolText,
} from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { normal, type Params, xavierUniform, zero } from "../../nn/params.ts";
import { checkTimes, timestepEmbedding } from "../../nn/timestep-embedding.ts";
import { type DDPMUNetConfig, normGroups } from "./config.ts";

export type DDPMUNetInputs = ConditionedInputs;

/**
 * Predicts the noise and, if it is learned, the variance: [B, channels, H, W] → [B, channels or twice as many, H, W].
 *
 * @throws ShapeError if the image cannot be halved once for each level, or the condition does not match the config
 */
export function ddpmUNet(
  p: Params,
  inputs: DDPMUNetInputs,
  config: DDPMUNetConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const { width, multipliers, blocks, channels, learnedVariance } = config;
  checkSize(inputs.x, multipliers.length);
  const vector = embedConditions(p, inputs, config).silu(); // [B, 4·width]
  const outputs = learnedVariance ? 2 * channels : channels;
  const attends = (level: number) => config.attention.includes(2 ** level);
  const run = (part: Params, block: (x: Tensor) => Tensor, given: Tensor) =>
    options.recompute && !part.tapped ? recompute([given], block) : block(given);
  const residual = (part: Params, given: Tensor, channelsOut: number, resample?: Resample) =>
    run(part, (y) => residualBlock(part, y, vector, channelsOut, config, resample), given);
  const attended = (part: Params, given: Tensor) =>
    run(part, (y) => attend(part, y, config), given);

  let x = conv2d(p.at("input_blocks.0.0"), inputs.x, multipliers[0]! * width, 3);
  const skips = [x];
  for (const [level, multiplier] of multipliers.entries()) {
    for (let i = 0; i < blocks; i++) {
      const block = p.at(`input_blocks.${skips.length}`);
      x = residual(block.at("0"), x, multiplier * width);
      if (attends(level)) x = attended(block.at("1"), x);
      skips.push(x);
    }
    if (level === multipliers.length - 1) continue;
    const down = p.at(`input_blocks.${skips.length}.0`);
    if (config.residualResampling) x = residual(down, x, x.size(1), halved);
    else if (config.plainResampling) x = halved(x);
    else x = conv2d(down.at("op"), x, x.size(1), 3, { stride: 2 });
    skips.push(x);
  }

  const middle = p.at("middle_block");
  x = residual(middle.at("0"), x, x.size(1));
  x = attended(middle.at("1"), x);
  x = residual(middle.at("2"), x, x.size(1));

  let index = 0;
  for (const [above, multiplier] of multipliers.toReversed().entries()) {
    const level = multipliers.length - 1 - above;
    for (let i = 0; i <= blocks; i++) {
      const block = p.at(`output_blocks.${index++}`);
      let part = 0;
      const next = () => block.at(String(part++));
      x = residual(next(), concat([x, skips.pop()!], 1), multiplier * width);
      if (attends(level)) x = attended(next(), x);
      if (level === 0 || i < blocks) continue;
      if (config.residualResampling) x = residual(next(), x, x.size(1), doubled);
      else if (config.plainResampling) x = doubled(x);
      else x = conv2d(next().at("conv"), doubled(x), x.size(1), 3);
    }
  }
  const h = normalized(p.at("out.0"), x).silu();
  return conv2d(p.at("out.2"), h, outputs, 3, { init: zero });
}

type Resample = (x: Tensor) => Tensor;

/** A residual block [B, C, h, w] → [B, outputs, …], which may change the resolution by `resample`. */
function residualBlock(
  p: Params,
  x: Tensor,
  vector: Tensor,
  outputs: number,
  { scaleShift }: DDPMUNetConfig,
  resample: Resample = (same) => same,
): Tensor {
  const resized = resample(normalized(p.at("in_layers.0"), x).silu());
  const h = conv2d(p.at("in_layers.2"), resized, outputs, 3);
  const embedding = linear(p.at("emb_layers.1"), vector, scaleShift ? 2 * outputs : outputs);
  const places = (values: Tensor) => values.reshape([values.dim(0), outputs, 1, 1]);
  const norm = (y: Tensor) => normalized(p.at("out_layers.0"), y);
  const modulated = () => {
    const [scale, shift] = embedding.split(2, 1) as [Tensor, Tensor];
    return norm(h).mul(places(scale).add(1)).add(places(shift));
  };
  const inner = scaleShift ? modulated() : norm(h.add(places(embedding)));
  const branch = conv2d(p.at("out_layers.3"), inner.silu(), outputs, 3, { init: zero });
  const skip = resample(x);
  const same = x.size(1) === outputs;
  return branch.add(same ? skip : conv2d(p.at("skip_connection"), skip, outputs, 1));
}

/** Self-attention over all pixels: [B, C, h, w] → [B, C, h, w]. */
function attend(p: Params, x: Tensor, { heads, headOrder }: DDPMUNetConfig): Tensor {
  const [width, h, w] = [x.size(1), x.size(2), x.size(3)];
  const count = "count" in heads ? heads.count : width / heads.channels;
  const tokens = normalized(p.at("norm"), x).rearrange("b c h w -> b (h w) c");
  // The weights are stored as those of a 1-D convolution and split, which costs nothing.
  const cut = (values: Tensor, rest: readonly number[]) =>
    headOrder === "legacy"
      ? values.reshape([count, 3, width / count, ...rest]).split(3, 1)
      : values.reshape([3, width, ...rest]).split(3, 0);
  const { weight, bias } = pointwise(p.at("qkv"), width, 3 * width, xavierUniform);
  const biases = cut(bias, []);
  const [q, k, v] = cut(weight, [width]).map((part, i) =>
    tokens.linear(part.reshape([width, width]), biases[i]!.reshape([width])),
  ) as [Tensor, Tensor, Tensor]; // [B, h·w, C] each
  const mixed = mixTokens(p, [q, k, v], { heads: count });
  const out = pointwise(p.at("proj_out"), width, width, () => zero);
  return x.add(mixed.linear(out.weight, out.bias).rearrange("b (h w) c -> b c h w", { h, w }));
}

function pointwise(
  p: Params,
  inputs: number,
  outputs: number,
  init: typeof xavierUniform,
): { readonly weight: Tensor; readonly bias: Tensor } {
  const weight = p.param("weight", [outputs, inputs, 1], init([outputs, inputs]));
  return { weight: weight.reshape([outputs, inputs]), bias: p.param("bias", [outputs], zero) };
}

function normalized(p: Params, x: Tensor): Tensor {
  return groupNorm(p, x, normGroups, 1e-5);
}

/** Halves height and width by the mean of each 2×2 square. */
function halved(x: Tensor): Tensor {
  const [h, w] = [x.size(2) / 2, x.size(3) / 2];
  return x.reshape([x.dim(0), x.size(1), h, 2, w, 2]).mean([3, 5]);
}

function doubled(x: Tensor): Tensor {
  return x.upsampleNearest(2);
}

/** Embeds time and condition: [B, 4·width]. */
function embedConditions(
  p: Params,
  { t, y, mask, drop }: DDPMUNetInputs,
  { width, condition }: DDPMUNetConfig,
): Tensor {
  checkTimes(t, undefined, "U-Net");
  const inner = linear(p.at("time_embed.0"), timestepEmbedding(t, width), 4 * width).silu();
  const time = linear(p.at("time_embed.2"), inner, 4 * width);
  if (condition.kind === "none") return time;
  const given = givenCondition(y, condition, "U-Net");
  if (condition.kind === "text") {
    const text = poolText(keptText(p.at("text_emb"), given, { mask, drop }));
    return time.add(linear(p.at("text_emb"), text, 4 * width));
  }
  return time.add(embedLabels(p.at("label_emb"), given, 4 * width, condition, drop, normal(1)));
}

function checkSize(x: Tensor, levels: number): void {
  const unit = 2 ** (levels - 1);
  const [height, width] = [x.size(2), x.size(3)];
  if (height % unit === 0 && width % unit === 0) return;
  throw new ShapeError(
    `An image of ${width}×${height} cannot be halved ${levels - 1} times, as this U-Net does; use a multiple of ${unit}.`,
  );
}
