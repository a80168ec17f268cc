/** What a network that denoises is given, and may be told of what it draws. */
import { ShapeError } from "../engine/errors.ts";
import { constantOf, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { channelsFirst, channelsLast } from "./convolutions.ts";
import { linear } from "./linear.ts";
import { mlp } from "./mlp.ts";
import { type Init, normal, type Params } from "./params.ts";

/** What the model draws: anything, one of some classes, or a text given as embeddings of its tokens. */
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
  /** Which tokens of a text count, [B, length] bool; all unless given. */
  readonly mask?: Tensor | undefined;
  /** Whose condition is left out, [B] bool; nobody's unless given. */
  readonly drop?: Tensor | undefined;
}

/** @throws ShapeError when a network that is told something is not */
export function givenCondition(
  y: Tensor | undefined,
  { kind }: { readonly kind: string },
  network: string,
): Tensor {
  if (y) return y;
  throw new ShapeError(`This ${network} is conditioned on a ${kind}; give it as \`y\`.`);
}

export interface Labels {
  /** Number of classes, from 0. */
  readonly classes: number;
  /** Whether the table has one more row, index `classes`, for an image without class. */
  readonly nullClass: boolean;
}

/**
 * Labels [B] → [B, hidden] by a table (name `weight`).
 *
 * @param drop [B] bool: where true, the null class takes the label's place
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
  /** [B, L] bool, false for padding; undefined where all count. */
  readonly mask: Tensor | undefined;
}

export interface TextOptions {
  /** [B, L] bool, false for padding. */
  readonly mask?: Tensor | undefined;
  /** [B] bool: where true, a trained token takes the text's place. */
  readonly drop?: Tensor | undefined;
}

/** Text [B, L, width] → tokens [B, L, hidden] (names `y_proj`, and `null` for no text). */
export function embedText(
  p: Params,
  text: Tensor,
  hidden: number,
  options: TextOptions = {},
): TextTokens {
  // Published checkpoints hold it, whether it is asked for or not.
  const none = p.param("null", [text.size(2)], normal(0.02));
  const { tokens, mask } = withoutDropped(none, text, options);
  return { tokens: mlp(p.at("y_proj"), tokens, hidden, "tanh", hidden), mask };
}

/** Text [B, L, width] as it is, but for a trained vector (name `null`) where it is dropped. */
export function keptText(p: Params, text: Tensor, options: TextOptions): TextTokens {
  if (!options.drop) return { tokens: text, mask: options.mask };
  return withoutDropped(p.param("null", [text.size(2)], normal(0.02)), text, options);
}

function withoutDropped(none: Tensor, text: Tensor, { mask, drop }: TextOptions): TextTokens {
  if (!drop) return { tokens: text, mask };
  const tokens = where(drop.reshape([drop.dim(0), 1, 1]), none, text);
  if (!mask) return { tokens, mask };
  // One token stands for no text, however long the text was.
  const length = text.size(1);
  const first = constantOf([1, ...new Array<number>(length - 1).fill(0)], [1, length], "bool");
  const dropped = drop.unsqueeze(1); // [B, 1]
  return { tokens, mask: dropped.and(first).or(dropped.not().and(mask)) };
}

/** The mean of the tokens that count: [B, L, C] → [B, C]. */
export function poolText({ tokens, mask }: TextTokens): Tensor {
  if (!mask) return tokens.mean(1);
  const weight = mask.cast("float32").unsqueeze(-1); // [B, L, 1]
  return tokens.mul(weight).sum(1).div(weight.sum(1).maximum(1));
}

/** Tokens [B, h, w] → [B, width, h, w], of about unit variance. */
export function embedTokens(p: Params, tokens: Tensor, width: number, codebook: number): Tensor {
  const table = p.at("embedding").param("weight", [codebook, width], normal(1));
  return channelsFirst(table.gather(tokens));
}

/** [B, width, h, w] → logits [B, codebook, h, w] */
export function tokenLogits(p: Params, x: Tensor, codebook: number): Tensor {
  return channelsFirst(linear(p.at("head"), channelsLast(x), codebook));
}
