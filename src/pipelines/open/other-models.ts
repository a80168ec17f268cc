/** Published models that cannot be opened, by keys that only they have, so that messages can say what a file is. */
import type { Weights } from "../../weights/safetensors/safetensors.ts";

const inUNet = (block: number) => `input_blocks.${block}.1.transformer_blocks.0.attn2.to_k.weight`;

/** Key → name of the model, the more specific keys first. */
const others: readonly (readonly [keys: readonly string[], title: string])[] = [
  [[inUNet(4), "label_emb.0.0.weight"], "Stable Diffusion XL"],
  [[inUNet(1), "input_blocks.0.0.weight"], "Stable Diffusion 1 or 2"],
  [
    ["down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
    "Stable Diffusion (U-Net)",
  ],
  [["transformer_blocks.0.img_mod.1.weight", "txt_norm.weight"], "Qwen-Image"],
  [["distilled_guidance_layer.in_proj.weight"], "Chroma"],
  [["double_blocks.0.img_mod.linear.weight"], "HunyuanVideo"],
  [["double_layers.0.attn.w1q.weight"], "AuraFlow"],
  [["double_stream_blocks.0.block.attn1.to_q.weight"], "HiDream"],
  [["patchify_proj.weight", "scale_shift_table"], "LTX-Video"],
  [["transformer_blocks.0.attn2.to_q.weight", "adaln_single.linear.weight"], "PixArt"],
  [["model.layers.0.self_attn.q_proj.weight"], "language model that is no Qwen3"],
  [["blk.0.attn_q.weight"], "language model in the names of llama.cpp that is no Qwen3"],
];

/** What files of a whole model have before the names of the network. */
const prefixes = ["", "model.diffusion_model."];

/** The name of the model that a file holds, if it is one that is known but not supported. */
export function otherModel({ entries }: Pick<Weights, "entries">): string | undefined {
  const holds = (keys: readonly string[]) =>
    prefixes.some((prefix) => keys.every((key) => entries.has(prefix + key)));
  return others.find(([keys]) => holds(keys))?.[1];
}
