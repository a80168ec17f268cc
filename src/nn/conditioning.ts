/** The inputs of denoising networks, and the embeddings of their conditions: classes, texts and codes. */
import { ShapeError } from "../engine/errors.ts";
import { constantOf, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { channelsFirst, channelsLast } from "./convolutions.ts";
import { linear } from "./linear.ts";
import { mlp } from "./mlp.ts";
import { type Init, normal, type Params } from "./params.ts";

/** The condition of a model: none, a class, or a text given as embeddings of its tokens. */
export type Condition =
  | { readonly kind: "none" }
  | ({ readonly kind: "class" } & Labels)
  | { readonly kind: "text"; readonly width: number; readonly length: number };

export interface ConditionedInputs {
  /** [B, channels, height, width] */
  readonly x: Tensor;
  /** Time steps [B] in [0, 1000), float32. */
  readonly t: Tensor;
  /** Classes [B], integers, or a text [B, length, width]. */
  readonly y?: Tensor | undefined;
  /** Mask of the text's tokens, [B, length] bool, false for padding; none is padding by default. */
  readonly mask?: Tensor | undefined;
  /** Rows whose condition is dropped, [B] bool; none by default. */
  readonly drop?: Tensor | undefined;
  /** The number of frames of a longer clip before this one, [B], float32; for networks of clips that take it. */
  readonly start?: Tensor | undefined;
}

/** @throws ShapeError if the condition of a conditional network is missing */
export function givenCondition(
  y: Tensor | undefined,
  { kind }: { readonly kind: string },
  network: string,
): Tensor {
  if (y) return y;
  throw new ShapeError(`This ${network} is conditioned on a ${kind}; give it as \`y\`.`);
}

export interface Labels {
  /** Number of classes. */
  readonly classes: number;
  /** True if the table has another row, with index `classes`, for images without a class (Ho & Salimans, 2022). */
  readonly nullClass: boolean;
}

/**
 * Embeds labels by a table with the name `weight`: [B] → [B, hidden].
 *
 * @param drop [B] bool, true for rows whose label is replaced by the null class
 */
export function embedLabels(
  p: Params,
  labels: Tensor,
  hidden: number,
  { classes, nullClass }: Labels,
  drop?: Tensor,
  init: Init = normal(0.02),
): Tensor {
  const rows = nullClass ? classes + 1 : classes;
  const table = p.param("weight", [rows, hidden], init);
  const kept = drop ? where(drop, constantOf([classes], [], labels.dtype), labels) : labels;
  return table.gather(kept);
}

export interface TextTokens {
  /** [B, L, C] */
  readonly tokens: Tensor;
  /** [B, L] bool, false for padding; undefined without padding. */
  readonly mask: Tensor | undefined;
}

export interface TextOptions {
  /** [B, L] bool, false for padding. */
  readonly mask?: Tensor | undefined;
  /** [B] bool, true for rows whose text is replaced by a trained token. */
  readonly drop?: Tensor | undefined;
}

/** Embeds the tokens of a text as those of a model (Chen et al., 2023, PixArt-α): [B, L, width] → [B, L, hidden]. `kept` is the text before, with the dropped rows replaced. Names: `y_proj`, and `null` for no text. */
export function embedText(
  p: Params,
  text: Tensor,
  hidden: number,
  options: TextOptions = {},
): TextTokens & { readonly kept: TextTokens } {
  // Published checkpoints contain it, so it is declared even if no text is dropped.
  const none = p.param("null", [text.size(2)], normal(0.02));
  const kept = withoutDropped(none, text, options);
  const tokens = mlp(p.at("y_proj"), kept.tokens, hidden, "tanh", hidden);
  return { tokens, mask: kept.mask, kept };
}

/** Replaces the text [B, L, width] of dropped rows by a trained vector with the name `null`. */
export function keptText(p: Params, text: Tensor, options: TextOptions): TextTokens {
  if (!options.drop) return { tokens: text, mask: options.mask };
  return withoutDropped(p.param("null", [text.size(2)], normal(0.02)), text, options);
}

function withoutDropped(none: Tensor, text: Tensor, { mask, drop }: TextOptions): TextTokens {
  if (!drop) return { tokens: text, mask };
  const tokens = where(drop.reshape([drop.dim(0), 1, 1]), none, text);
  if (!mask) return { tokens, mask };
  // A dropped text is a single token, whatever its length was.
  const length = text.size(1);
  const first = constantOf([1, ...new Array<number>(length - 1).fill(0)], [1, length], "bool");
  const dropped = drop.unsqueeze(1); // [B, 1]
  return { tokens, mask: dropped.and(first).or(dropped.not().and(mask)) };
}

/** Averages the tokens that are not padding: [B, L, C] → [B, C]. */
export function poolText({ tokens, mask }: TextTokens): Tensor {
  if (!mask) return tokens.mean(1);
  const weight = mask.cast("float32").unsqueeze(-1); // [B, L, 1]
  return tokens.mul(weight).sum(1).div(weight.sum(1).maximum(1));
}

/** Embeds codes as an image of about unit variance: [B, h, w] → [B, width, h, w]. */
export function embedTokens(p: Params, tokens: Tensor, width: number, codebook: number): Tensor {
  const table = p.at("embedding").param("weight", [codebook, width], normal(1));
  return channelsFirst(table.gather(tokens));
}

/** Maps features [B, width, h, w] to logits [B, codebook, h, w]. */
export function tokenLogits(p: Params, x: Tensor, codebook: number): Tensor {
  return channelsFirst(linear(p.at("head"), channelsLast(x), codebook));
}
