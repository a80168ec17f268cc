/** Embeddings of a text's tokens, from an encoder, as tokens of a model (Chen et al., 2023, PixArt-α). */
import { constantOf, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { mlp } from "./mlp.ts";
import { normal, type Params } from "./params.ts";

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
