/**
 * Paella (Rampas et al., 2022), version 3: predicts the codes of an image, some of whose codes are noise. It consists of convolutions
 * with attention at the lower resolutions, which attends to texts and images as tokens. Weights have the names of dome272/Paella.
 */
import { FormatError, quote, UsageError } from "../../engine/errors.ts";
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mixTokens } from "../../nn/attention.ts";
import { pixelShuffle, pixelUnshuffle } from "../../engine/graph/pool.ts";
import {
  channelNorm,
  channelsFirst,
  channelsLast,
  checkDivides,
  conv2d,
  doublingConv,
} from "../../nn/convolutions.ts";
import { linear } from "../../nn/linear.ts";
import { normal, type Params, xavierUniform, zero } from "../../nn/params.ts";
import { noiseRatioEmbedding } from "../../nn/timestep-embedding.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { TrainedPaellaConfig } from "./config.ts";

/** The published model, which reads a text as ByT5's tokens and CLIP's vectors. */
export interface PaellaConfig extends Omit<
  TrainedPaellaConfig,
  "size" | "condition" | "learnedVariance" | "tokens"
> {
  /** Number of codes in the codebook. */
  readonly codebook: number;
  /** Width of CLIP's vectors, each of which becomes `clipTokens` tokens; 0 for a model without CLIP. */
  readonly clipWidth: number;
  /** The number of tokens that each of CLIP's vectors becomes. */
  readonly clipTokens: number;
}

type PaellaLevel = TrainedPaellaConfig["levels"][number];

export interface PaellaInputs {
  /** Codes [B, h, w], int64. */
  readonly tokens: Tensor;
  /** Noise ratio, the share of codes that are noise: [B], in [0, 1]. */
  readonly share: Tensor;
  /** [B, L, textWidth] */
  readonly text: Tensor;
  /** CLIP's vectors of texts and images, each [B, clipWidth]. */
  readonly clipText?: Tensor | undefined;
  readonly clipImage?: Tensor | undefined;
}

export const paellaPresets = {
  /** The published model; the default width of the text in its code is 1536. */
  "Paella-v3": {
    codebook: 8192,
    channels: 256,
    patch: 2,
    shareWidth: 64,
    conditionWidth: 1024,
    textWidth: 2560,
    clipWidth: 1024,
    clipTokens: 4,
    levels: [
      { width: 640, heads: -1, blocks: 6, parts: "CT" },
      { width: 1280, heads: 16, blocks: 16, parts: "CTA" },
      { width: 1280, heads: 16, blocks: 6, parts: "CTA" },
    ],
    kernel: 3,
    selfAttention: true,
  },
} satisfies Record<string, PaellaConfig>;

/** The inputs that all blocks share. */
interface BlockInputs {
  /** [B, shareWidth] */
  readonly share: Tensor;
  /** [B, M, conditionWidth] */
  readonly condition: Tensor;
  readonly config: PaellaConfig;
}

/**
 * Returns the logits of the code of each position, [B, codebook, h, w].
 *
 * @throws ShapeError if h and w cannot be halved once for each level
 */
export function paella(p: Params, inputs: PaellaInputs, config: PaellaConfig): Tensor {
  const { channels, patch, codebook, levels } = config;
  checkDivides(inputs.tokens, patch * 2 ** (levels.length - 1), 1, "A map of tokens");
  const shared = {
    share: noiseRatioEmbedding(inputs.share, config.shareWidth),
    condition: embedConditions(p, inputs, config),
    config,
  };
  const table = p
    .at("in_mapper.0")
    .param("weight", [codebook, channels], normal(Math.sqrt(1 / codebook)));
  const embedded = channelsFirst(table.gather(inputs.tokens).layerNorm({ epsilon: 1e-6 }));
  const patches = pixelUnshuffle(embedded, patch); // [B, channels·patch², H, W]
  const first = { init: xavierUniform([levels[0]!.width, patches.size(1)], 0.02) };
  let x = channelNorm(conv2d(p.at("embedding.1"), patches, levels[0]!.width, 1, first));
  const outputs: Tensor[] = [];
  for (const [level, shape] of levels.entries()) {
    const down = p.at(`down_blocks.${level}`);
    let part = 0;
    const next = () => down.at(String(part++));
    if (level > 0) {
      const init = xavierUniform([shape.width, x.size(1), 2, 2]);
      x = conv2d(next().at("1"), channelNorm(x), shape.width, 2, { stride: 2, padding: 0, init });
    }
    for (let i = 0; i < shape.blocks; i++) {
      for (const kind of shape.parts) x = partOf(kind, next(), x, shape, shared);
    }
    outputs.push(x);
  }
  for (const [above, shape] of levels.toReversed().entries()) {
    const up = p.at(`up_blocks.${above}`);
    let part = 0;
    const next = () => up.at(String(part++));
    const skip = above > 0 ? outputs[levels.length - 1 - above] : undefined;
    for (let i = 0; i < shape.blocks; i++) {
      for (const [j, kind] of shape.parts.split("").entries()) {
        x = partOf(kind, next(), x, shape, shared, i === 0 && j === 0 ? skip : undefined);
      }
    }
    const lower = levels[levels.length - 2 - above];
    if (lower) x = doublingConv(next().at("1"), channelNorm(x), lower.width, 2);
  }
  const places = conv2d(p.at("clf.1"), channelNorm(x), channels * patch ** 2, 1, { init: zero });
  const last = { bias: false, init: normal(Math.sqrt(1 / codebook)) };
  return conv2d(p.at("out_mapper.1"), channelNorm(pixelShuffle(places, patch)), codebook, 1, last);
}

function partOf(
  kind: string,
  p: Params,
  x: Tensor,
  level: PaellaLevel,
  shared: BlockInputs,
  skip?: Tensor,
): Tensor {
  switch (kind) {
    case "C": {
      const width = x.size(1);
      // With a skip connection each output reads two neighbouring channels, as in the original.
      const seen = skip ? concat([x, skip], 1) : x;
      const { kernel } = shared.config;
      const init = xavierUniform([width, seen.size(1) / width, kernel, kernel]);
      const spread = conv2d(p.at("depthwise"), seen, width, kernel, { groups: width, init });
      return x.add(channelwise(p, channelNorm(spread), shared));
    }
    case "F":
      return x.add(channelwise(p, channelNorm(x), shared));
    case "T": {
      const width = x.size(1);
      const mapped = linear(p.at("mapper"), shared.share, 2 * width, { init: zero });
      const [scale, shift] = mapped.reshape([mapped.dim(0), 2 * width, 1, 1]).split(2, 1);
      return x.mul(scale!.add(1)).add(shift!);
    }
    case "A":
      return attend(p, x, level.heads, shared);
    default:
      throw new UsageError(
        `A level of Paella has the part ${quote(kind)}; use only C, T, A and F.`,
      );
  }
}

/** Two linear layers with a global response normalization between them (Woo et al., 2023). */
function channelwise(p: Params, x: Tensor, { config }: BlockInputs): Tensor {
  const width = x.size(1);
  const inner = linear(p.at("channelwise.0"), channelsLast(x), 4 * width).gelu(); // [B, H, W, 4·C]
  const scope = p.at("channelwise.2");
  const gamma = scope.param("gamma", [1, 1, 1, 4 * width], zero);
  const beta = scope.param("beta", [1, 1, 1, 4 * width], zero);
  const response = inner.square().sum([1, 2], true).sqrt();
  const relative = response.div(response.mean(-1, true).add(1e-6));
  const normed = gamma.mul(inner.mul(relative)).add(beta).add(inner);
  const blocks = config.levels.reduce((sum, level) => sum + level.blocks, 0);
  const init = xavierUniform([width, 4 * width], 1 / Math.sqrt(blocks));
  return channelsFirst(linear(p.at("channelwise.4"), normed, width, { init }));
}

/** Attention of pixels to the condition and, if the config says so, to each other. */
function attend(p: Params, x: Tensor, heads: number, { condition, config }: BlockInputs): Tensor {
  const [width, h, w] = [x.size(1), x.size(2), x.size(3)];
  const tokens = channelNorm(x).rearrange("b c h w -> b (h w) c");
  const mapped = linear(p.at("kv_mapper.1"), condition.silu(), width);
  const context = config.selfAttention ? concat([tokens, mapped], 1) : mapped;
  const scope = p.at("attention.attn");
  const weights = scope
    .param("in_proj_weight", [3 * width, width], xavierUniform([3 * width, width]))
    .split(3, 0);
  const biases = scope.param("in_proj_bias", [3 * width], zero).split(3, 0);
  const [q, k, v] = [tokens, context, context].map((each, i) =>
    each.linear(weights[i]!, biases[i]),
  ) as [Tensor, Tensor, Tensor];
  const mixed = linear(scope.at("out_proj"), mixTokens(scope, [q, k, v], { heads }), width);
  return x.add(mixed.rearrange("b (h w) c -> b c h w", { h, w }));
}

/** Embeds the text and CLIP's vectors as tokens, [B, M, conditionWidth]. */
function embedConditions(
  p: Params,
  { text, clipText, clipImage }: PaellaInputs,
  { conditionWidth: width, clipTokens, clipWidth }: PaellaConfig,
): Tensor {
  const init = normal(0.02);
  const fromClip = (name: string, vector: Tensor | undefined) => {
    if (clipTokens === 0) return [];
    // Checkpoints contain both, so both are declared even if they are not used.
    const weight = p.at(name).param("weight", [clipTokens * width, clipWidth], init);
    const bias = p.at(name).param("bias", [clipTokens * width], zero);
    return vector ? [vector.linear(weight, bias).reshape([vector.dim(0), clipTokens, width])] : [];
  };
  const sequence = [
    linear(p.at("byt5_mapper"), text, width, { init }),
    ...fromClip("clip_mapper", clipText),
    ...fromClip("clip_image_mapper", clipImage),
  ];
  return concat(sequence, 1).layerNorm({ epsilon: 1e-6 });
}

/**
 * The arguments of Paella in dome272/Paella.
 *
 * @throws FormatError that names the field at fault
 */
export function paellaConfig(read: FieldReader): PaellaConfig {
  const widths = read.counts("c_hidden", [640, 1280, 1280]);
  const heads = read.numbers("nhead", [-1, 16, 16]);
  const blocks = read.counts("blocks", [6, 16, 6]);
  const parts = read.names("level_config", ["CT", "CTA", "CTA"]);
  const channels = read.count("c_in", 256);
  const kernel = read.count("kernel_size", 3);
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw new FormatError(`${read.file} ${problem}.`);
  };
  for (const [name, { length }] of Object.entries({ nhead: heads, blocks, level_config: parts })) {
    check(
      length === widths.length,
      `has ${quote(name)} for ${length} levels, but c_hidden for ${widths.length}; give one for each`,
    );
  }
  const divides = (count: number, width: number) => count > 0 && width % count === 0;
  const odd = widths.findIndex((width, i) => parts[i]!.includes("A") && !divides(heads[i]!, width));
  check(odd < 0, `divides a width of ${widths[odd]} into ${heads[odd]} heads; correct "nhead"`);
  // The last layer of the original is initialized with its embedding.
  check(
    read.count("c_out", channels) === channels,
    `has another "c_out" than "c_in", ${channels}; make them equal`,
  );
  check(kernel % 2 === 1, `has "kernel_size" = ${kernel}; give an odd number`);
  const config: PaellaConfig = {
    codebook: read.count("num_labels", 8192),
    channels,
    patch: read.count("patch_size", 2),
    shareWidth: read.count("c_r", 64),
    conditionWidth: read.count("c_cond", 1024),
    textWidth: read.count("byt5_embd", 1536),
    clipWidth: read.count("clip_embd", 1024),
    clipTokens: read.count("clip_seq_len", 4),
    levels: widths.map((width, i) => {
      return { width, heads: heads[i]!, blocks: blocks[i]!, parts: parts[i]! };
    }),
    kernel,
    selfAttention: read.flag("self_attn", true),
  };
  read.ignore("dropout");
  read.finish("Paella");
  return config;
}
