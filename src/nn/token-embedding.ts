/** Discrete tokens as what networks of continuous pictures see, and what these say of them as logits. */
import type { Tensor } from "../engine/graph/tensor.ts";
import { channelsFirst, channelsLast } from "./feature-maps.ts";
import { linear } from "./linear.ts";
import { normal, type Params } from "./params.ts";

/** Tokens [B, h, w] → [B, width, h, w], of about unit variance. */
export function embedTokens(p: Params, tokens: Tensor, width: number, codebook: number): Tensor {
  const table = p.at("embedding").param("weight", [codebook, width], normal(1));
  return channelsFirst(table.gather(tokens));
}

/** [B, width, h, w] → logits [B, codebook, h, w] */
export function tokenLogits(p: Params, x: Tensor, codebook: number): Tensor {
  return channelsFirst(linear(p.at("head"), channelsLast(x), codebook));
}
