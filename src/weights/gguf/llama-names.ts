/** The names that llama.cpp gives the weights of language models in GGUF files, as those of transformers. */
import { renamed, type Renaming } from "../check-keys.ts";
import { type Weights, weightsOf } from "../safetensors/safetensors.ts";

/** Qwen3 and other models that only decode. */
const decoderNames: Renaming = [
  [/^token_embd\./, "model.embed_tokens."],
  [/^output_norm\./, "model.norm."],
  [/^output\./, "lm_head."],
  [/^blk\./, "model.layers."],
  [/\.attn_norm\./, ".input_layernorm."],
  [/\.ffn_norm\./, ".post_attention_layernorm."],
  [/\.attn_(q|k)_norm\./, ".self_attn.$1_norm."],
  [/\.attn_(q|k|v)\./, ".self_attn.$1_proj."],
  [/\.attn_output\./, ".self_attn.o_proj."],
  [/\.ffn_(gate|up|down)\./, ".mlp.$1_proj."],
];

/** The encoder of T5, each of whose layers has two halves with a norm. */
const encoderNames: Renaming = [
  [/^token_embd\./, "shared."],
  [/^enc\.output_norm\./, "encoder.final_layer_norm."],
  [/^enc\.blk\./, "encoder.block."],
  [/\.attn_rel_b\./, ".layer.0.SelfAttention.relative_attention_bias."],
  [/\.attn_norm\./, ".layer.0.layer_norm."],
  [/\.attn_(q|k|v|o)\./, ".layer.0.SelfAttention.$1."],
  [/\.ffn_norm\./, ".layer.1.layer_norm."],
  [/\.ffn_gate\./, ".layer.1.DenseReluDense.wi_0."],
  [/\.ffn_up\./, ".layer.1.DenseReluDense.wi_1."],
  [/\.ffn_down\./, ".layer.1.DenseReluDense.wo."],
];

/** A language model under the names of transformers; other weights are returned as they are. */
export function withoutLlamaNames(weights: Weights): Weights {
  const { entries } = weights;
  if (!entries.has("token_embd.weight")) return weights;
  const names = entries.has("enc.output_norm.weight") ? encoderNames : decoderNames;
  const all = [...entries].map(([name, entry]) => [renamed(name, names), entry] as const);
  return weightsOf(weights.name, weights.metadata, new Map(all), () => weights.close());
}
