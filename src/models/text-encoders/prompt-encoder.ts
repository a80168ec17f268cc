/**
 * A small text encoder that is trained with the network it tells what to draw: words whose meaning is known, given as a
 * table, become tokens of the network's width, which a few transformer blocks relate to one another ("red" to "apple").
 *
 * Bidirectional, pre-norm, with rotary positions (Su et al., 2021) and SwiGLU (Shazeer, 2020), as small text encoders have
 * become since BERT.
 */
import type { Tensor } from "../../engine/graph/tensor.ts";
import { maskBias, selfAttention } from "../../nn/attention.ts";
import { linear } from "../../nn/linear.ts";
import { feedForward } from "../../nn/mlp.ts";
import { type Norm, norm } from "../../nn/norm.ts";
import { normal, type Params } from "../../nn/params.ts";
import { rotaryTable } from "../../nn/positions.ts";

export interface PromptEncoderConfig {
  /** Rows of the table of words. */
  readonly vocabulary: number;
  /** Width of the table of words. */
  readonly wordWidth: number;
  /** Width of the tokens that come out. */
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Tokens of a prompt, with its padding. */
  readonly length: number;
}

const rms: Norm = { kind: "rms", affine: true, epsilon: 1e-6 };

/**
 * Pieces of words → tokens [B, length, width]; what stands where the mask is false has no meaning, and no influence.
 *
 * The table `words` [vocabulary, wordWidth] is expected to have unit variance. Training it costs a product with the one-hot
 * matrix of all words; left out of what is trained, it is only looked up.
 *
 * @param ids [B, length], int64
 * @param mask [B, length] bool, false for padding
 */
export function promptEncoder(
  p: Params,
  ids: Tensor,
  mask: Tensor,
  { vocabulary, wordWidth, width, depth, heads, length }: PromptEncoderConfig,
): Tensor {
  const words = p.param("words", [vocabulary, wordWidth], normal(1)).gather(ids); // [B, L, wordWidth]
  const options = { rotary: rotaryTable([length], width / heads), bias: maskBias(mask) };
  let h = linear(p.at("projection"), words, width); // [B, L, C]
  for (let i = 0; i < depth; i++) {
    const block = p.at(`blocks.${i}`);
    h = h.add(selfAttention(block.at("attn"), norm(block.at("norm1"), h, rms), heads, options));
    const inner = norm(block.at("norm2"), h, rms);
    h = h.add(feedForward(block.at("mlp"), inner, 4 * width, { kind: "swiglu" }));
  }
  return norm(p.at("norm"), h, rms); // [B, L, C]
}
