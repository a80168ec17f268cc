/** Embeddings of a text's tokens, from an encoder, as tokens of a model (Chen et al., 2023, PixArt-α). */
import { constantOf, where } from "../engine/functional.ts";
import type { Tensor } from "../engine/tensor.ts";
import { mlp } from "./mlp.ts";
import { normal, type Params } from "./params.ts";

export interface TextTokens {
  /** [B, L, hidden] */
  readonly tokens: Tensor;
  /** [B, L] bool, false for padding; undefined where all count. */
  readonly mask: Tensor | undefined;
}

/**
 * Text [B, L, width] → tokens [B, L, hidden] (names `y_proj`, and `null` for no text).
 *
 * @param text.mask [B, L] bool, false for padding
 * @param text.drop [B] bool: where true, a trained token takes the text's place
 */
export function embedText(
  p: Params,
  text: Tensor,
  hidden: number,
  { mask, drop }: { readonly mask?: Tensor | undefined; readonly drop?: Tensor | undefined } = {},
): TextTokens {
  const [length, width] = [text.size(1), text.size(2)];
  const none = p.param("null", [width], normal(0.02));
  const kept = drop ? where(drop.reshape([drop.dim(0), 1, 1]), none, text) : text;
  const tokens = mlp(p.at("y_proj"), kept, hidden, "tanh", hidden); // [B, L, hidden]
  if (!mask || !drop) return { tokens, mask };
  // One token stands for no text, however long the text was.
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
