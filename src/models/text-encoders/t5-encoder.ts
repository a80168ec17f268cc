/**
 * The encoder of T5 version 1.1 (Raffel et al., 2020; Shazeer, 2020): a transformer without biases whose only positional
 * information is an attention bias that depends on the distance between tokens.
 *
 * Weights have the names of transformers.
 */
import { FormatError } from "../../engine/errors.ts";
import { attention, constant, input } from "../../engine/graph/functional.ts";
import { ndarray } from "../../engine/arrays/ndarray.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { maskBias } from "../../nn/attention.ts";
import { linear } from "../../nn/linear.ts";
import { gatedMlp } from "../../nn/mlp.ts";
import { norm } from "../../nn/norm.ts";
import { createParams, normal, type Params, type ParamsRoot } from "../../nn/params.ts";
import { blocksUnder } from "../../weights/checkpoint-shapes.ts";
import { checkedWeights, type KeyMap } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";

export interface T5EncoderConfig {
  /** The number of token ids. */
  readonly vocabulary: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Channels of a head. */
  readonly headSize: number;
  /** Width of the feed-forward layers. */
  readonly hidden: number;
  /** The number of buckets of distances in both directions together; even. */
  readonly buckets: number;
  /** All distances from this one on share a bucket. */
  readonly maxDistance: number;
  readonly epsilon: number;
  /** True if every layer has a bias by distance of its own, as in umT5 (Chung et al., 2023); false if all use that of the first. */
  readonly biasEachLayer: boolean;
}

const extraExtraLarge: T5EncoderConfig = {
  vocabulary: 32_128,
  width: 4096,
  depth: 24,
  heads: 64,
  headSize: 64,
  hidden: 10_240,
  buckets: 32,
  maxDistance: 128,
  epsilon: 1e-6,
  biasEachLayer: false,
};

export const t5EncoderPresets = {
  "T5-XXL": extraExtraLarge,
  "umT5-XXL": { ...extraExtraLarge, vocabulary: 256_384, biasEachLayer: true },
  "flan-t5-large": { ...extraExtraLarge, width: 1024, heads: 16, hidden: 2816 },
} satisfies Record<string, T5EncoderConfig>;

/**
 * Encodes token ids, and returns the output of the last layer after the final norm, [B, L, width].
 *
 * @param inputs.ids [B, L], int64
 * @param inputs.mask [B, L] bool, false for padding; no padding by default
 */
export function t5Encoder(
  p: Params,
  { ids, mask }: { readonly ids: Tensor; readonly mask?: Tensor | undefined },
  config: T5EncoderConfig,
): Tensor {
  const { vocabulary, width, depth } = config;
  const encoder = p.at("encoder");
  const biasOf = (layer: number) => {
    const table = encoder.at(`block.${layer}.layer.0.SelfAttention.relative_attention_bias`);
    const distances = distanceBias(table, ids.size(1), config); // [1, heads, L, L]
    return mask ? distances.add(maskBias(mask)) : distances; // [1 or B, heads, L, L]
  };
  const first = biasOf(0);

  let h = p.at("shared").param("weight", [vocabulary, width], normal(1)).gather(ids); // [B, L, C]
  for (let i = 0; i < depth; i++) {
    const block = encoder.at(`block.${i}`);
    const bias = config.biasEachLayer && i > 0 ? biasOf(i) : first;
    h = h.add(selfAttention(block.at("layer.0"), h, bias, config)); // [B, L, C]
    h = h.add(feedForward(block.at("layer.1"), h, config)); // [B, L, C]
  }
  return rmsNorm(encoder.at("final_layer_norm"), h, config);
}

/** [B, L, C] → [B, L, C]; scores are not divided by the root of the heads' size, which is in the weights. */
function selfAttention(p: Params, x: Tensor, bias: Tensor, config: T5EncoderConfig): Tensor {
  const { width, heads, headSize } = config;
  const inner = rmsNorm(p.at("layer_norm"), x, config);
  const attn = p.at("SelfAttention");
  const [q, k, v] = (["q", "k", "v"] as const).map((name) =>
    linear(attn.at(name), inner, heads * headSize, { bias: false }),
  ) as [Tensor, Tensor, Tensor]; // 3 × [B, L, heads·headSize]
  const mixed = attention(q, k, v, { heads, bias, scale: 1 });
  return linear(attn.at("o"), mixed, width, { bias: false });
}

/** A GELU gate times a linear branch: [B, L, C] → [B, L, C]. */
function feedForward(p: Params, x: Tensor, config: T5EncoderConfig): Tensor {
  return gatedMlp(p.at("DenseReluDense"), rmsNorm(p.at("layer_norm"), x, config), config.hidden, {
    names: ["wi_0", "wi_1", "wo"],
    activation: (gate) => gate.gelu("tanh"),
  });
}

function rmsNorm(p: Params, x: Tensor, { epsilon }: T5EncoderConfig): Tensor {
  return norm(p, x, { kind: "rms", affine: true, epsilon });
}

/** The attention bias by distance of queries (rows) and keys (columns), [1, heads, length, length]. */
function distanceBias(p: Params, length: number, config: T5EncoderConfig): Tensor {
  const { buckets, heads } = config;
  const table = p.param("weight", [buckets, heads], normal(config.width ** -0.5));
  const places = [...new Array(length).keys()];
  const rows = places.flatMap((query) => places.map((key) => distanceBucket(key - query, config)));
  const chosen = table.gather(constant(ndarray("int64", [length, length], rows))); // [L, L, heads]
  return chosen.transpose([2, 0, 1]).unsqueeze(0);
}

/**
 * The bucket for a key that follows its query by `offset` tokens, or precedes it if negative. Small distances have a bucket
 * each, and larger ones share logarithmic buckets. Each operation is rounded to float32 as in the original.
 */
export function distanceBucket(
  offset: number,
  { buckets, maxDistance }: Pick<T5EncoderConfig, "buckets" | "maxDistance">,
): number {
  const half = Math.floor(buckets / 2);
  const exact = Math.floor(half / 2);
  const side = offset > 0 ? half : 0;
  const distance = Math.abs(offset);
  if (distance < exact) return side + distance;
  const share = Math.fround(Math.log(Math.fround(distance / exact)));
  const scaled = Math.fround(share / Math.fround(Math.log(maxDistance / exact)));
  const large = exact + Math.trunc(Math.fround(scaled * (half - exact)));
  return side + Math.min(half - 1, large);
}

/** Declares every weight, for `checkKeys`. */
export function t5EncoderParams(config: T5EncoderConfig): ParamsRoot {
  const p = createParams();
  t5Encoder(p, { ids: input("ids", [batch, 1], "int64") }, config);
  return p;
}

/**
 * Reads the config.json of transformers' T5EncoderModel, or UMT5EncoderModel; missing fields have the defaults of transformers.
 *
 * @throws FormatError that names the field at fault; the first version of T5, without gates, is not supported
 */
export function t5EncoderConfig(read: FieldReader): T5EncoderConfig {
  read.choice("feed_forward_proj", ["gated-gelu"]);
  // Both follow from feed_forward_proj, but transformers would obey them if they differed.
  read.only("is_gated_act", true);
  read.only("dense_act_fn", "gelu_new");
  const buckets = read.count("relative_attention_num_buckets", 32);
  const maxDistance = read.count("relative_attention_max_distance", 128);
  if (buckets < 4 || maxDistance <= buckets / 4) {
    throw new FormatError(
      `${read.file} has ${buckets} "relative_attention_num_buckets" for distances up to ${maxDistance}; give at least 4, and fewer than four times the distance.`,
    );
  }
  return {
    vocabulary: read.count("vocab_size", 32_128),
    width: read.count("d_model", 512),
    depth: read.count("num_layers", 6),
    heads: read.count("num_heads", 8),
    headSize: read.count("d_kv", 64),
    hidden: read.count("d_ff", 2048),
    buckets,
    maxDistance,
    epsilon: read.number("layer_norm_epsilon", 1e-6),
    biasEachLayer: read.text("model_type", "t5") === "umt5",
  };
}

const firstBlock = "encoder.block.0.layer";

/** Infers a config from the shapes of a checkpoint; one of another model gives a config whose weights it lacks. */
function shownConfig({ entries }: Weights): T5EncoderConfig {
  const shapeOf = (key: string) => entries.get(key)?.shape ?? [];
  const attn = `${firstBlock}.0.SelfAttention`;
  const [inner, width] = shapeOf(`${attn}.q.weight`);
  const [buckets, heads] = shapeOf(`${attn}.relative_attention_bias.weight`);
  const [hidden] = shapeOf(`${firstBlock}.1.DenseReluDense.wi_0.weight`);
  const [vocabulary] = shapeOf(tokenTables.find((key) => entries.has(key)) ?? "");
  if (!inner || !width || !buckets || !heads || !hidden || !vocabulary) return extraExtraLarge;
  return {
    ...extraExtraLarge,
    vocabulary,
    width,
    depth: Math.max(1, blocksUnder({ entries }, "encoder.block")),
    heads,
    headSize: Math.max(1, Math.floor(inner / heads)),
    hidden,
    buckets,
    biasEachLayer: entries.has(
      "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
    ),
  };
}

/** The token table has two names, because the decoder shares it; files have one or both. */
const tokenTables = ["shared.weight", "encoder.embed_tokens.weight"] as const;

/** Names of the weights in a file, which may also hold the decoder. */
export function t5EncoderKeys({ entries }: Pick<Weights, "entries">): KeyMap {
  const table = tokenTables.find((key) => entries.has(key)) ?? tokenTables[0];
  return {
    keyOf: (name) => (name === tokenTables[0] ? table : name),
    owns: (key) => key.startsWith("encoder.") && key !== tokenTables[1],
  };
}

/**
 * Opens the encoder in a checkpoint of T5.
 *
 * @param config inferred from the shapes by default
 * @throws FormatError if the checkpoint is of another model
 */
export function t5EncoderIn(
  file: Weights,
  config: T5EncoderConfig = shownConfig(file),
): { readonly config: T5EncoderConfig; readonly weights: WeightSource } {
  requirePlausible(`The config of ${file.name}`, config, file);
  return { config, weights: checkedWeights(t5EncoderParams(config), file, t5EncoderKeys(file)) };
}
