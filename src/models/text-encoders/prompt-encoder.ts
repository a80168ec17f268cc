/**
 * A small text encoder that is trained together with the network that it conditions. A table holds a pretrained vector for
 * each word; the vectors are projected to the network's width, and a few transformer blocks relate them to one another
 * ("red" to "apple").
 *
 * The blocks are bidirectional and pre-norm, with rotary positions (Su et al., 2021) and SwiGLU (Shazeer, 2020), as small
 * text encoders since BERT have them.
 */
import * as z from "zod";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { maskBias, selfAttention } from "../../nn/attention.ts";
import { linear } from "../../nn/linear.ts";
import { feedForward } from "../../nn/mlp.ts";
import { type Norm, norm } from "../../nn/norm.ts";
import { normal, type Params } from "../../nn/params.ts";
import { rotaryTable } from "../../nn/positions.ts";
import { chosenCode, priorWidth, promptChoices, promptPriorSchema } from "./prompt-prior.ts";

const count = z.int().min(1);

export const promptEncoderSchema = z
  .strictObject({
    /** The number of token ids. */
    vocabulary: count,
    /** Width of the word vectors. */
    wordWidth: count,
    /** Width of the output. */
    width: count,
    /** The number of transformer blocks; 0 for none. */
    depth: z.int().min(0),
    /** The number of attention heads of a block, which divide `width` into even parts. */
    heads: count,
    /** The number of tokens of a prompt, including padding. */
    length: count,
    /** Makes one code of a picture from the tokens of the prompt. */
    prior: promptPriorSchema.optional(),
  })
  .superRefine(({ width, heads }, context) => {
    if (width % (2 * heads) === 0) return;
    const message = `${heads} heads do not divide the width ${width} into even parts, which rotary positions need`;
    context.addIssue({ code: "custom", path: ["heads"], message });
  });

export type PromptEncoderConfig = z.output<typeof promptEncoderSchema>;

const rms: Norm = { kind: "rms", affine: true, epsilon: 1e-6 };

/** The tokens [B, length, width] that a prompt becomes, with their mask, or the one token [B, 1, code] of a prior. */
export function encodedPrompt(
  p: Params,
  ids: Tensor,
  mask: Tensor,
  config: PromptEncoderConfig,
): { readonly y: Tensor; readonly mask?: Tensor } {
  const tokens = promptEncoder(p, ids, mask, config);
  const { prior } = config;
  if (!prior) return { y: tokens, mask };
  const own = p.at("prior");
  return { y: chosenCode(own, promptChoices(own, tokens, mask, prior), prior) };
}

/** The number and width of the tokens that a prompt encoder conditions a network on. */
export function encodedSize({ length, width, prior }: PromptEncoderConfig): {
  readonly length: number;
  readonly width: number;
} {
  return prior ? { length: 1, width: priorWidth(prior) } : { length, width };
}

/**
 * Encodes token ids as [B, length, width]. Where the mask is false, the output is meaningless and the input has no influence.
 *
 * The table `words` [vocabulary, wordWidth] is expected to have unit variance. Training it costs a product with the one-hot
 * matrix of all words; a table that is not trained is only looked up.
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
