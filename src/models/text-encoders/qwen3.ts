/**
 * Qwen3 (2025) as a text encoder: a causal transformer with grouped-query attention, RMSNorm of each head and half-split rotary
 * positions. Image models read hidden states from its middle, so that only the layers up to the last of these are needed.
 *
 * Weights have the names of transformers.
 */
import { FormatError } from "../../engine/errors.ts";
import { detach, input, where } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { causalBias, groupedQueryAttention, maskBias } from "../../nn/attention.ts";
import { gatedMlp } from "../../nn/mlp.ts";
import { type Norm, norm } from "../../nn/norm.ts";
import { createParams, normal, type Params, type ParamsRoot } from "../../nn/params.ts";
import { rotaryTable } from "../../nn/positions.ts";
import { checkedWeights, type KeyMap } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";

export interface Qwen3Config {
  /** The number of token ids. */
  readonly vocabulary: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Heads of keys and values. */
  readonly keyHeads: number;
  /** Channels of a head. */
  readonly headSize: number;
  /** Width of the feed-forward layers. */
  readonly hidden: number;
  readonly epsilon: number;
  /** Base of the rotary frequencies. */
  readonly theta: number;
  /** True if the projections of the attention have a bias. */
  readonly attentionBias: boolean;
  /** The token of padding, whose embedding is not trained. */
  readonly padding?: number | undefined;
}

export const qwen3Presets = {
  "Qwen3-4B": {
    vocabulary: 151_936,
    width: 2560,
    depth: 36,
    heads: 32,
    keyHeads: 8,
    headSize: 128,
    hidden: 9728,
    epsilon: 1e-6,
    theta: 1e6,
    attentionBias: false,
  },
} satisfies Record<string, Qwen3Config>;

/**
 * Encodes token ids and returns the hidden states with the given indices, each [B, L, width]: 0 is the embedding, k the output of
 * layer k, and `depth` that of the last layer after the final norm, as in the `hidden_states` of transformers.
 *
 * @param inputs.ids [B, L], int64
 * @param inputs.mask [B, L] bool, false for padding, which stands behind the text; no padding by default
 */
export function qwen3(
  p: Params,
  { ids, mask }: { readonly ids: Tensor; readonly mask?: Tensor | undefined },
  config: Qwen3Config,
  states: readonly number[],
): readonly Tensor[] {
  const { vocabulary, width, depth, headSize, theta } = config;
  const length = ids.size(1);
  const causal = causalBias(length); // [1, 1, L, L]
  const shared = {
    rotary: rotaryTable([length], headSize, { theta, pairing: "halves" }),
    bias: mask ? causal.add(maskBias(mask)) : causal, // [1 or B, 1, L, L]
  };
  const table = p.at("embed_tokens").param("weight", [vocabulary, width], normal(0.02));
  const all = [withoutGradient(table.gather(ids), ids, config)]; // [B, L, C]
  for (let i = 0; i < Math.max(...states); i++) {
    all.push(layer(p.at(`layers.${i}`), all[i]!, config, shared));
  }
  return states.map((state) =>
    state === depth ? norm(p.at("norm"), all[depth]!, rms(config)) : all[state]!,
  );
}

/** Embeddings [B, L, C] of which those of padding get no gradient. */
function withoutGradient(embedded: Tensor, ids: Tensor, { padding }: Qwen3Config): Tensor {
  if (padding === undefined) return embedded;
  return where(ids.equal(padding).unsqueeze(-1), detach(embedded), embedded);
}

/** One layer: [B, L, C] → [B, L, C]. */
function layer(
  p: Params,
  x: Tensor,
  config: Qwen3Config,
  shared: Pick<Parameters<typeof groupedQueryAttention>[2], "rotary" | "bias">,
): Tensor {
  const { hidden, attentionBias, ...heads } = config;
  const qkNorm = rms(config);
  const attended = groupedQueryAttention(
    p.at("self_attn"),
    norm(p.at("input_layernorm"), x, qkNorm),
    { ...pickHeads(heads), ...shared, qkNorm, projectionBias: attentionBias },
  );
  const h = x.add(attended);
  const inner = norm(p.at("post_attention_layernorm"), h, qkNorm);
  return h.add(
    gatedMlp(p.at("mlp"), inner, hidden, { names: ["gate_proj", "up_proj", "down_proj"] }),
  );
}

function pickHeads({
  heads,
  keyHeads,
  headSize,
}: Pick<Qwen3Config, "heads" | "keyHeads" | "headSize">) {
  return { heads, keyHeads, headSize };
}

function rms({ epsilon }: Qwen3Config): Norm {
  return { kind: "rms", affine: true, epsilon };
}

/** Declares the weights that the hidden states need, or all of them. */
export function qwen3Params(
  config: Qwen3Config,
  states: readonly number[] = [config.depth],
): ParamsRoot {
  const p = createParams();
  qwen3(p, { ids: input("ids", [batch, 1], "int64") }, config, states);
  return p;
}

/**
 * Reads the config.json of transformers' Qwen3Model or Qwen3ForCausalLM; missing fields have the defaults of transformers.
 *
 * @throws FormatError that names the field at fault
 */
export function qwen3Config(read: FieldReader): Qwen3Config {
  read.only("hidden_act", "silu");
  read.only("use_sliding_window", false);
  if (read.has("layer_types")) read.choices("layer_types", ["full_attention"]);
  const rope = read.has("rope_parameters") ? read.object("rope_parameters") : read;
  rope.only("rope_type", "default");
  if (read.has("rope_scaling")) {
    const scaling = read.object("rope_scaling");
    scaling.only("rope_type", "default");
    scaling.only("type", "default");
    if (!scaling.has("rope_type") && !scaling.has("type")) scaling.choice("rope_type", ["default"]);
  }
  const heads = read.count("num_attention_heads", 32);
  // Transformers' default, 32, holds only where the field is absent; null means one for each head.
  const keyHeads = read.isNull("num_key_value_heads")
    ? heads
    : read.count("num_key_value_heads", 32);
  if (heads % keyHeads !== 0) {
    throw new FormatError(
      `${read.file} has ${keyHeads} "num_key_value_heads", which do not divide its ${heads} "num_attention_heads"; correct them.`,
    );
  }
  const headSize = read.count("head_dim", 128);
  if (headSize % 2 !== 0) {
    throw new FormatError(
      `${read.file} has "head_dim" = ${headSize}, but rotary positions need an even number.`,
    );
  }
  return {
    vocabulary: read.count("vocab_size", 151_936),
    width: read.count("hidden_size", 4096),
    depth: read.count("num_hidden_layers", 32),
    heads,
    keyHeads,
    headSize,
    hidden: read.count("intermediate_size", 22_016),
    epsilon: read.number("rms_norm_eps", 1e-6),
    theta: rope.number("rope_theta", 10_000),
    attentionBias: read.flag("attention_bias", false),
    ...(read.has("pad_token_id") && { padding: read.number("pad_token_id") }),
  };
}

/** Names of the weights in a file, which may also hold further layers and the head that predicts words. */
export function qwen3Keys({ entries }: Pick<Weights, "entries">, used: number): KeyMap {
  const prefix = entries.has("model.embed_tokens.weight") ? "model." : "";
  return {
    keyOf: (name) => prefix + name,
    owns(key) {
      if (!key.startsWith(`${prefix}layers.`)) return false;
      return Number(key.slice(prefix.length).split(".")[1]) < used;
    },
  };
}

/**
 * Opens the encoder in a checkpoint of Qwen3, for some of its hidden states: layers behind the last of them need not be there.
 *
 * @param wanted indices of the hidden states; negative ones count from the end, so that −2 is that before the last layer
 * @param config inferred from the shapes by default, with the frequencies of Qwen3-4B
 * @returns also the indices as `qwen3` takes them
 * @throws FormatError if the checkpoint is of another model, or has no such state
 */
export function qwen3In(
  file: Weights,
  wanted: readonly number[],
  config: Qwen3Config = shownConfig(file),
): {
  readonly config: Qwen3Config;
  readonly weights: WeightSource;
  readonly states: readonly number[];
} {
  requirePlausible(`The config of ${file.name}`, config, file);
  const states = wanted.map((state) => (state < 0 ? config.depth + 1 + state : state));
  const last = Math.max(...states);
  if (last > config.depth) {
    throw new FormatError(
      `${file.name} is a Qwen3 of ${config.depth} layers, but the model reads the output of layer ${last}; give the text encoder that belongs to it.`,
    );
  }
  const asked = qwen3Params(config, states);
  return { config, weights: checkedWeights(asked, file, qwen3Keys(file, last)), states };
}

/** Infers a config from the shapes of a checkpoint; one of another model gives a config whose weights it lacks. */
function shownConfig({ entries }: Weights): Qwen3Config {
  const prefix = entries.has("model.embed_tokens.weight") ? "model." : "";
  const shapeOf = (key: string) => entries.get(prefix + key)?.shape ?? [];
  const published = qwen3Presets["Qwen3-4B"];
  const [vocabulary, width] = shapeOf("embed_tokens.weight");
  const [headSize] = shapeOf("layers.0.self_attn.q_norm.weight");
  const [queries] = shapeOf("layers.0.self_attn.q_proj.weight");
  const [keys] = shapeOf("layers.0.self_attn.k_proj.weight");
  const [hidden] = shapeOf("layers.0.mlp.gate_proj.weight");
  if (!vocabulary || !width || !headSize || !queries || !keys || !hidden) return published;
  let layers = 0;
  while (entries.has(`${prefix}layers.${layers}.input_layernorm.weight`)) layers++;
  // A file without the final norm was cut behind the last layer that is needed.
  const isCut = !entries.has(`${prefix}norm.weight`);
  return {
    ...published,
    vocabulary,
    width,
    depth: isCut ? Math.max(published.depth, layers + 1) : layers,
    heads: Math.max(1, Math.floor(queries / headSize)),
    keyHeads: Math.max(1, Math.floor(keys / headSize)),
    headSize,
    hidden,
    attentionBias: entries.has(`${prefix}layers.0.self_attn.q_proj.bias`),
  };
}
