/** What the checkpoints of FLUX.1 and FLUX.2 have in common: names in diffusers, and sizes that shapes show. */
import { FormatError } from "../engine/errors.ts";
import type { Renaming } from "../weights/check-keys.ts";
import { blocksUnder, requiredShapes } from "../weights/checkpoint-shapes.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";

/** The original's names → diffusers', whose projections of an attention are read as one. */
export const streamNames: Renaming = [
  [/^img_in\./, "x_embedder."],
  [/^txt_in\./, "context_embedder."],
  [/\.in_layer\./, ".linear_1."],
  [/\.out_layer\./, ".linear_2."],
  [/^final_layer\.adaLN_modulation\.1\./, "norm_out.linear."],
  [/^final_layer\.linear\./, "proj_out."],
  [/^double_blocks\./, "transformer_blocks."],
  [/\.img_attn\.qkv\./, ".attn.to_qkv."],
  [/\.txt_attn\.qkv\./, ".attn.add_qkv_proj."],
  [/\.img_attn\.norm\.query_norm\.scale$/, ".attn.norm_q.weight"],
  [/\.img_attn\.norm\.key_norm\.scale$/, ".attn.norm_k.weight"],
  [/\.txt_attn\.norm\.query_norm\.scale$/, ".attn.norm_added_q.weight"],
  [/\.txt_attn\.norm\.key_norm\.scale$/, ".attn.norm_added_k.weight"],
  [/\.img_attn\.proj\./, ".attn.to_out.0."],
  [/\.txt_attn\.proj\./, ".attn.to_add_out."],
  [/^single_blocks\./, "single_transformer_blocks."],
  [/^(single_\w+\.\d+)\.norm\.query_norm\.scale$/, "$1.attn.norm_q.weight"],
  [/^(single_\w+\.\d+)\.norm\.key_norm\.scale$/, "$1.attn.norm_k.weight"],
];

/** Returns true if diffusers' layer of this name makes scale before shift, where the original makes shift before scale. */
export const isLastModulation = (layer: string): boolean => layer === "norm_out.linear";

/**
 * Sizes of a checkpoint with the original names, and `sizeOf` for others.
 *
 * @throws FormatError if its heads are not as wide as those of the published models, so that no shape shows the rotary axes
 */
export function streamSizes(
  weights: Pick<Weights, "name" | "entries">,
  title: string,
  published: { readonly hidden: number; readonly heads: number },
) {
  const { sizeOf } = requiredShapes(weights, title);
  const hidden = sizeOf("img_in.weight", 0);
  const head = sizeOf("double_blocks.0.img_attn.norm.query_norm.scale", 0);
  if (head !== published.hidden / published.heads) {
    throw new FormatError(
      `${weights.name} is a ${title} with heads of ${head} channels, from which its rotary axes cannot be inferred; give a folder in diffusers' layout, whose config has them.`,
    );
  }
  const [depth, singleDepth] = ["double_blocks", "single_blocks"].map((name) =>
    blocksUnder(weights, name),
  ) as [number, number];
  return { sizeOf, hidden, depth, singleDepth, heads: hidden / head };
}
