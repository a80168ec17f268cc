/**
 * DiT, "Scalable Diffusion Models with Transformers" (Peebles & Xie, 2022): an image, or its latents, is cut
 * into patches; the patches are tokens of a plain transformer, which is conditioned on time and on a class or
 * a text; each token that comes out is a patch of the predicted noise (and of its variance).
 *
 * All four block designs that the paper compares are here, and what later recipes changed (RMSNorm, SwiGLU,
 * rotary positions, norms of queries and keys, bottlenecked patches of raw pixels: JiT, Li & He, 2025).
 * Weights bear the names of the original code; `diffusersDiTKeys` finds them under diffusers'.
 */
import { ShapeError } from "../../engine/errors.ts";
import { concat, full, input } from "../../engine/graph/functional.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { crossAttention, maskBias, selfAttention } from "../../nn/attention.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import {
  type Condition,
  type ConditionedInputs,
  embedLabels,
  embedText,
  givenCondition,
  poolText,
  type TextTokens,
} from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { type FeedForward, feedForward } from "../../nn/mlp.ts";
import { adaptiveBranch, type Branch, modulation, plainBranch } from "../../nn/modulation.ts";
import type { Norm } from "../../nn/norm.ts";
import { createParams, normal, type Params, type ParamsRoot, zero } from "../../nn/params.ts";
import { type PatchEmbedding, patchEmbedding, patchGrid, unpatchify } from "../../nn/patches.ts";
import { type RotaryTable, rotaryTable, sinCos2d } from "../../nn/positions.ts";
import { embedTime } from "../../nn/timestep-embedding.ts";
import type { KeyMap } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

export interface DiTConfig {
  /** Height and width that the model is trained for; with fixed or rotary positions it takes others too. */
  readonly size: readonly [height: number, width: number];
  /** Channels of the latents, or 3 for pixels. */
  readonly channels: number;
  readonly patch: number;
  readonly hidden: number;
  readonly depth: number;
  readonly heads: number;
  /** Width of the feed-forward layers, as a multiple of `hidden`. */
  readonly mlpRatio: number;
  /** Whether the output has as many channels again, for the variance (Nichol & Dhariwal, 2021). */
  readonly learnedVariance: boolean;
  readonly condition: Condition;
  readonly block: BlockDesign;
  readonly patches: PatchEmbedding;
  /** What is added to each patch's token: a fixed table, a trained one, or nothing. */
  readonly positions: { readonly kind: "sin-cos" | "learned" | "none" };
  /** Turns queries and keys by row and column. */
  readonly rotary: { readonly theta: number } | null;
  /** In blocks without modulation, norms are affine anyway. */
  readonly norm: Norm;
  readonly feedForward: FeedForward;
  /** Norm of each head's queries and keys. */
  readonly qkNorm: Norm | null;
  /** Makes the blocks' modulations through so many channels, which saves most of their weights; whole unless given. */
  readonly modulationRank?: number | undefined;
}

/**
 * How blocks learn of time and condition: by tokens among the patches, by attention to tokens beside them, or
 * by norms whose scale and shift depend on one vector; "adaLN-zero" gates each branch too, by 0 at first. There
 * a text counts by the mean of its tokens, and by the tokens themselves where `text` says so.
 */
export type BlockDesign =
  | { readonly kind: "in-context" }
  | { readonly kind: "cross-attention" }
  | { readonly kind: "adaLN"; readonly text?: TextRoute | undefined }
  | { readonly kind: "adaLN-zero"; readonly text?: TextRoute | undefined };
type TextRoute = "in-context" | "cross-attention";

export type DiTInputs = ConditionedInputs;

const paper = {
  size: [32, 32],
  channels: 4,
  mlpRatio: 4,
  learnedVariance: true,
  condition: { kind: "class", classes: 1000, nullClass: true },
  block: { kind: "adaLN-zero" },
  patches: { kind: "linear" },
  positions: { kind: "sin-cos" },
  rotary: null,
  norm: { kind: "layer", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "gelu", approximate: "tanh" },
  qkNorm: null,
} as const;

const small = { ...paper, depth: 12, hidden: 384, heads: 6 };
const base = { ...paper, depth: 12, hidden: 768, heads: 12 };
const large = { ...paper, depth: 24, hidden: 1024, heads: 16 };
const extraLarge = { ...paper, depth: 28, hidden: 1152, heads: 16 };

/** The paper's models, on latents of 256×256 pixels. */
export const ditPresets = {
  "DiT-S/8": { ...small, patch: 8 },
  "DiT-S/4": { ...small, patch: 4 },
  "DiT-S/2": { ...small, patch: 2 },
  "DiT-B/8": { ...base, patch: 8 },
  "DiT-B/4": { ...base, patch: 4 },
  "DiT-B/2": { ...base, patch: 2 },
  "DiT-L/8": { ...large, patch: 8 },
  "DiT-L/4": { ...large, patch: 4 },
  "DiT-L/2": { ...large, patch: 2 },
  "DiT-XL/8": { ...extraLarge, patch: 8 },
  "DiT-XL/4": { ...extraLarge, patch: 4 },
  "DiT-XL/2": { ...extraLarge, patch: 2 },
} satisfies Record<string, DiTConfig>;

/**
 * [B, channels, H, W] → [B, channels or twice as many, H, W]: noise, and where it is learned, the variance.
 *
 * @param options.recompute computes each block again in the backward pass instead of keeping its activations
 * @throws ShapeError when the patch does not divide the image, or the condition is not what the config says
 */
export function dit(
  p: Params,
  { x, t, ...given }: DiTInputs,
  config: DiTConfig,
  options: { readonly recompute?: boolean } = {},
): Tensor {
  const { patch, hidden, channels, learnedVariance } = config;
  const grid = patchGrid(x, patch);
  const count = grid[0] * grid[1]; // N
  const time = embedTime(p.at("t_embedder"), t, hidden); // [B, C]
  const condition = embedCondition(p.at("y_embedder"), given, config);
  const { vector, joined, attended } = route(time, condition, config.block);
  const context: Context = {
    vector,
    attended,
    bias: joined?.mask && maskBias(allowing(count, joined.mask)),
    // Tokens that joined the patches have no place in the image: they are not turned.
    rotary:
      config.rotary &&
      rotaryTable(grid, hidden / config.heads, {
        ...config.rotary,
        extra: joined?.tokens.size(1) ?? 0,
      }),
  };

  const patches = patchEmbedding(p.at("x_embedder"), x, patch, hidden, config.patches); // [B, N, C]
  const placed = addPositions(p, patches, grid, config); // [B, N, C]
  let [h] = runBlocks(
    [joined ? concat([placed, joined.tokens], 1) : placed],
    blockScopes(p, "blocks", config.depth),
    (block, [tokens]) => [ditBlock(block, tokens, context, config)],
    options,
  ); // [B, N + M, C]
  if (joined) h = h.slice(1, 0, count); // [B, N, C]
  const outputs = learnedVariance ? 2 * channels : channels;
  const tokens = finalLayer(p.at("final_layer"), h, vector, outputs, config); // [B, N, patch²·outputs]
  return unpatchify(tokens, grid, patch, "p q c"); // [B, outputs, H, W]
}

/** What all blocks share. */
interface Context {
  /** What modulates the norms: [B, C]. */
  readonly vector: Tensor | undefined;
  /** What cross-attention attends to. */
  readonly attended: TextTokens | undefined;
  /** Hides padding among the tokens that joined the patches. */
  readonly bias: Tensor | undefined;
  readonly rotary: RotaryTable | null;
}

/** One block: [B, N, C] → [B, N, C]. */
function ditBlock(p: Params, x: Tensor, context: Context, config: DiTConfig): Tensor {
  const { heads, hidden, mlpRatio, qkNorm } = config;
  const { vector, attended } = context;
  const [attention, mlp] = branches(p, ["norm1", "norm2"], vector, config) as [Branch, Branch];
  const options = { ...context, qkNorm };
  let h = x.add(attention.gate(selfAttention(p.at("attn"), attention.norm(x), heads, options)));
  if (attended) {
    const cross = plainBranch(p.at("norm_cross"), config.norm);
    const heard = { heads, ...(attended.mask && { bias: maskBias(attended.mask) }) };
    h = h.add(crossAttention(p.at("cross_attn"), cross.norm(h), attended.tokens, heard));
  }
  const inner = Math.trunc(hidden * mlpRatio);
  return h.add(mlp.gate(feedForward(p.at("mlp"), mlp.norm(h), inner, config.feedForward)));
}

/** [B, N, C] → [B, N, patch²·outputs], zero at first. */
function finalLayer(
  p: Params,
  x: Tensor,
  vector: Tensor | undefined,
  outputs: number,
  config: DiTConfig,
): Tensor {
  const [{ norm }] = branches(p, ["norm_final"], vector, config, false) as [Branch];
  return linear(p.at("linear"), norm(x), config.patch ** 2 * outputs, { init: zero });
}

/** Branches with norms of the given names; all modulations come from one linear layer, zero at first in "adaLN-zero". */
function branches(
  p: Params,
  names: readonly string[],
  vector: Tensor | undefined,
  { norm, block, modulationRank }: DiTConfig,
  gates = block.kind === "adaLN-zero",
): readonly Branch[] {
  if (!vector) return names.map((name) => plainBranch(p.at(name), norm));
  const each = gates ? 3 : 2;
  const parts = each * names.length;
  const init = block.kind === "adaLN-zero" ? zero : undefined;
  const values = modulation(p, vector, parts, { rank: modulationRank, init });
  return names.map((name, i) => {
    const [shift, scale, gate] = values.slice(i * each, (i + 1) * each);
    return adaptiveBranch(p.at(name), norm, [shift!, scale!, gate]);
  });
}

/** The condition as one vector [B, C] and as tokens [B, M, C]. */
interface Embedded extends TextTokens {
  readonly pooled: Tensor;
}

function embedCondition(
  p: Params,
  { y, mask, drop }: Pick<DiTInputs, "y" | "mask" | "drop">,
  { condition, hidden }: DiTConfig,
): Embedded | undefined {
  if (condition.kind === "none") {
    if (!y) return undefined;
    throw new ShapeError("This DiT has no condition, but a `y` was given; leave it out.");
  }
  const given = givenCondition(y, condition, "DiT");
  if (condition.kind === "text") {
    const text = embedText(p, given, hidden, { mask, drop });
    return { ...text, pooled: poolText(text) };
  }
  if (drop && !condition.nullClass) {
    throw new ShapeError("This DiT has no null class, so no class can be dropped.");
  }
  const pooled = embedLabels(p.at("embedding_table"), given, hidden, condition, drop); // [B, C]
  return { pooled, tokens: pooled.unsqueeze(1), mask: undefined };
}

/** By which ways time and condition reach the blocks. */
function route(
  time: Tensor,
  condition: Embedded | undefined,
  block: BlockDesign,
): { vector?: Tensor; joined?: TextTokens; attended?: TextTokens } {
  if (block.kind === "in-context" || block.kind === "cross-attention") {
    const first = time.unsqueeze(1); // [B, 1, C]
    const tokens = condition ? concat([first, condition.tokens], 1) : first; // [B, 1 + M, C]
    const both = { tokens, mask: condition?.mask && allowing(1, condition.mask) };
    return block.kind === "in-context" ? { joined: both } : { attended: both };
  }
  const vector = (condition ? time.add(condition.pooled) : time).silu();
  if (!condition || !block.text) return { vector };
  const way = block.text === "in-context" ? "joined" : "attended";
  return { vector, [way]: condition };
}

/** A mask [B, M] behind `count` tokens that all count: [B, count + M]. */
function allowing(count: number, mask: Tensor): Tensor {
  return concat([full([mask.dim(0), count], 1, "bool"), mask], 1);
}

function addPositions(
  p: Params,
  tokens: Tensor,
  [rows, columns]: readonly [number, number],
  { positions, hidden }: DiTConfig,
): Tensor {
  const shape = [1, rows * columns, hidden];
  switch (positions.kind) {
    case "none":
      return tokens;
    case "learned":
      return tokens.add(p.param("pos_embed", shape, normal(0.02)));
    case "sin-cos": {
      const table = sinCos2d([...new Array(rows).keys()], [...new Array(columns).keys()], hidden);
      return tokens.add(p.buffer("pos_embed", { ...table, shape }));
    }
  }
}

/**
 * Classifier-free guidance as the original code has it: of a batch of 2B, of which the first half of x is used
 * twice, with conditions y and then none, both halves get the guided noise; and only the first three channels
 * of it are guided, which the published figures rest on.
 */
export function ditWithGuidance(
  p: Params,
  { x, ...rest }: DiTInputs,
  config: DiTConfig,
  scale: Tensor,
  guidedChannels = 3,
): Tensor {
  const half = x.split(2, 0)[0]!;
  const out = dit(p, { ...rest, x: concat([half, half], 0) }, config); // [2B, outputs, H, W]
  const [conditional, unconditional] = out.slice(1, 0, guidedChannels).split(2, 0) as [
    Tensor,
    Tensor,
  ];
  const guided = unconditional.add(conditional.sub(unconditional).mul(scale));
  const twice = concat([guided, guided], 0); // [2B, guidedChannels, H, W]
  return guidedChannels < out.size(1) ? concat([twice, out.slice(1, guidedChannels)], 1) : twice;
}

/** A model as a graph: its inputs, named as in `DiTInputs`, its output and its weights. */
export interface TracedDiT {
  readonly params: ParamsRoot;
  readonly inputs: DiTInputs;
  readonly output: Tensor;
  /** Patches of an image. */
  readonly tokens: number;
}

/**
 * Traces the model at a size, with a text's mask among the inputs.
 *
 * @param options.drop whether `drop` is among the inputs
 */
export function traceDiT(
  config: DiTConfig,
  options: {
    readonly size?: readonly [height: number, width: number];
    readonly drop?: boolean;
    readonly recompute?: boolean;
  } = {},
): TracedDiT {
  const { condition, channels, patch } = config;
  const { size = config.size, drop = false } = options;
  const inputs: DiTInputs = {
    x: input("x", [batch, channels, ...size]),
    t: input("t", [batch]),
    ...(condition.kind === "class" && { y: input("y", [batch], "int64") }),
    ...(condition.kind === "text" && {
      y: input("y", [batch, condition.length, condition.width]),
      mask: input("mask", [batch, condition.length], "bool"),
    }),
    ...(drop && { drop: input("drop", [batch], "bool") }),
  };
  const params = createParams();
  const output = dit(params, inputs, config, options);
  const [rows, columns] = patchGrid(inputs.x, patch);
  return { params, inputs, output, tokens: rows * columns };
}

/**
 * The arguments of the original code's constructor; what they leave out has its defaults.
 *
 * @throws FormatError that names the field at fault
 */
export function ditConfig(read: FieldReader): DiTConfig {
  return {
    ...paper,
    size: read.size("input_size", 32),
    patch: read.count("patch_size", 2),
    channels: read.count("in_channels", 4),
    hidden: read.count("hidden_size", 1152),
    depth: read.count("depth", 28),
    heads: read.count("num_heads", 16),
    mlpRatio: read.number("mlp_ratio", 4),
    learnedVariance: read.flag("learn_sigma", true),
    condition: {
      kind: "class",
      classes: read.count("num_classes", 1000),
      nullClass: read.number("class_dropout_prob", 0.1) > 0,
    },
  };
}

/**
 * The config.json of diffusers' DiTTransformer2DModel (or of its Transformer2DModel, as older releases wrote it);
 * what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersDiTConfig(read: FieldReader): DiTConfig {
  const heads = read.count("num_attention_heads", 16);
  const channels = read.count("in_channels", 4);
  // Of the many models that the class can be, these are DiTs.
  read.choice("norm_type", ["ada_norm_zero"], "ada_norm_zero");
  read.choice("activation_fn", ["gelu-approximate"], "gelu-approximate");
  return {
    ...paper,
    size: read.size("sample_size", 32),
    patch: read.count("patch_size", 2),
    channels,
    heads,
    hidden: heads * read.count("attention_head_dim", 72),
    depth: read.count("num_layers", 28),
    learnedVariance: read.count("out_channels", channels) === 2 * channels,
    condition: { ...paper.condition, classes: read.count("num_embeds_ada_norm", 1000) },
  };
}

/** Ours → diffusers', whose three projections of the attention are read as one, `to_qkv`. */
const diffusersNames: readonly (readonly [RegExp, string])[] = [
  [/^pos_embed$/, "pos_embed.pos_embed"],
  [/^x_embedder\./, "pos_embed."],
  [/^t_embedder\.mlp\.0\./, "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1."],
  [/^t_embedder\.mlp\.2\./, "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2."],
  [/^y_embedder\./, "transformer_blocks.0.norm1.emb.class_embedder."],
  [/^final_layer\.adaLN_modulation\.1\./, "proj_out_1."],
  [/^final_layer\.linear\./, "proj_out_2."],
  [/^blocks\./, "transformer_blocks."],
  [/\.attn\.qkv\./, ".attn1.to_qkv."],
  [/\.attn\.proj\./, ".attn1.to_out.0."],
  [/\.mlp\.fc1\./, ".ff.net.0.proj."],
  [/\.mlp\.fc2\./, ".ff.net.2."],
  [/\.adaLN_modulation\.1\./, ".norm1.linear."],
];

/**
 * The names of diffusers' `transformer/` folder, after `joinQkv`. There every block holds a copy of the
 * embeddings of time and class, of which the first block's counts.
 */
export const diffusersDiTKeys: KeyMap = {
  keyOf: (name) => diffusersNames.reduce((key, [ours, theirs]) => key.replace(ours, theirs), name),
  owns: (key) => !/^transformer_blocks\.[1-9]\d*\.norm1\.emb\./.test(key),
};
