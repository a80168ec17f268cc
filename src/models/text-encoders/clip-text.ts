/**
 * The text encoder of CLIP (Radford et al., 2021), in the versions of OpenAI (CLIP-L) and OpenCLIP (CLIP-G; Cherti et al.,
 * 2023): a causal transformer whose token at the end of the text summarizes it.
 *
 * Diffusion models use the output of the last layer but one, before the norm. Weights have the names of transformers.
 */
import { ShapeError } from "../../engine/errors.ts";
import { attention, constantOf, input } from "../../engine/graph/functional.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { causalBias } from "../../nn/attention.ts";
import { linear } from "../../nn/linear.ts";
import { norm } from "../../nn/norm.ts";
import { createParams, normal, type Params, type ParamsRoot } from "../../nn/params.ts";
import { blocksUnder } from "../../weights/checkpoint-shapes.ts";
import { checkedWeights, type KeyMap } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";

export interface ClipTextConfig {
  /** The number of token ids. */
  readonly vocabulary: number;
  /** The largest number of tokens of a text. */
  readonly positions: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Width of the feed-forward layers. */
  readonly hidden: number;
  readonly activation: ClipActivation;
  readonly epsilon: number;
  /** Width of the projected output; null without a projection. */
  readonly projection: number | null;
  /** The id of the end-of-text token; by default the largest id of each text. */
  readonly end?: number | undefined;
}

const activations = {
  /** x·sigmoid(1.702x) (Hendrycks & Gimpel, 2016, section 2). */
  quick_gelu: (x: Tensor) => x.mul(x.mul(1.702).sigmoid()),
  gelu: (x: Tensor) => x.gelu("none"),
};
type ClipActivation = keyof typeof activations;

const large = {
  vocabulary: 49_408,
  positions: 77,
  width: 768,
  depth: 12,
  heads: 12,
  hidden: 3072,
  activation: "quick_gelu",
  epsilon: 1e-5,
  projection: 768,
} satisfies ClipTextConfig;

const giant = { width: 1280, depth: 32, heads: 20, hidden: 5120, projection: 1280 };

export const clipTextPresets: Readonly<Record<"CLIP-L" | "CLIP-G", ClipTextConfig>> = {
  "CLIP-L": large,
  "CLIP-G": { ...large, ...giant, activation: "gelu" },
};

export type ClipTextName = keyof typeof clipTextPresets;

/** The outputs of the text encoder. */
export interface ClipText {
  /** The output of the last layer after the final norm, [B, L, width]. */
  readonly last: Tensor;
  /** The output of the last layer but one, [B, L, width]. */
  readonly penultimate: Tensor;
  readonly penultimateNormed: Tensor;
  /** `last` at the end-of-text token, [B, width]. */
  readonly pooled: Tensor;
  /** `pooled` after the projection, [B, projection]; `pooled` itself without a projection. */
  readonly projected: Tensor;
}

/**
 * Encodes token ids.
 *
 * @param inputs.ids [B, L], int64, including the end-of-text token
 * @throws ShapeError if there are more tokens than positions
 */
export function clipText(
  p: Params,
  { ids }: { readonly ids: Tensor },
  config: ClipTextConfig,
): ClipText {
  const { vocabulary, positions, width, depth, projection } = config;
  const length = ids.size(1);
  if (length > positions) {
    throw new ShapeError(
      `This CLIP reads at most ${positions} tokens, got ${length}; truncate the text.`,
    );
  }
  const model = p.at("text_model");
  const tokens = model
    .at("embeddings.token_embedding")
    .param("weight", [vocabulary, width], normal(0.02))
    .gather(ids); // [B, L, C]
  const places = model
    .at("embeddings.position_embedding")
    .param("weight", [positions, width], normal(0.01)); // [positions, C]
  const bias = causalBias(length);
  const normed = (x: Tensor) => layerNorm(model.at("final_layer_norm"), x, config);

  let h = tokens.add(length < positions ? places.slice(0, 0, length) : places); // [B, L, C]
  let penultimate = h;
  for (let i = 0; i < depth; i++) {
    penultimate = h;
    h = clipLayer(model.at(`encoder.layers.${i}`), h, bias, config); // [B, L, C]
  }
  const last = normed(h);
  const pooled = atEnd(last, ids, config); // [B, C]
  const project = (outputs: number) =>
    linear(p.at("text_projection"), pooled, outputs, { bias: false });
  const projected = projection === null ? pooled : project(projection);
  return { last, penultimate, penultimateNormed: normed(penultimate), pooled, projected };
}

/** One layer: [B, L, C] → [B, L, C]. */
function clipLayer(p: Params, x: Tensor, bias: Tensor, config: ClipTextConfig): Tensor {
  const { width, heads, hidden, activation } = config;
  const attn = p.at("self_attn");
  const inner = layerNorm(p.at("layer_norm1"), x, config);
  const project = (name: string) => linear(attn.at(name), inner, width); // [B, L, C]
  const mixed = attention(project("q_proj"), project("k_proj"), project("v_proj"), { heads, bias });
  const h = x.add(linear(attn.at("out_proj"), mixed, width));
  const wide = linear(p.at("mlp.fc1"), layerNorm(p.at("layer_norm2"), h, config), hidden); // [B, L, hidden]
  return h.add(linear(p.at("mlp.fc2"), activations[activation](wide), width));
}

function layerNorm(p: Params, x: Tensor, { epsilon }: ClipTextConfig): Tensor {
  return norm(p, x, { kind: "layer", affine: true, epsilon });
}

/** Selects the first end-of-text token of each text, [B, L, C] → [B, C]. */
function atEnd(x: Tensor, ids: Tensor, { end }: ClipTextConfig): Tensor {
  const isEnd = (id: number) => ids.equal(constantOf([id], [], "int64")).cast("float32");
  const place = (end === undefined ? ids : isEnd(end)).argmax(-1); // [B]
  return place.oneHot(ids.size(1)).unsqueeze(1).matmul(x).squeeze(1);
}

/** Declares every weight, for `checkKeys`. */
export function clipTextParams(config: ClipTextConfig): ParamsRoot {
  const p = createParams();
  clipText(p, { ids: input("ids", [batch, config.positions], "int64") }, config);
  return p;
}

/**
 * Reads the config.json of transformers' CLIPTextModel or CLIPTextModelWithProjection; missing fields have the defaults of
 * transformers.
 *
 * @throws FormatError that names the field at fault
 */
export function clipTextConfig(read: FieldReader): ClipTextConfig {
  const [architecture] = read.choices(
    "architectures",
    ["CLIPTextModel", "CLIPTextModelWithProjection"],
    ["CLIPTextModelWithProjection"],
  );
  // Older configs always have 2 here, which transformers takes to mean the largest token.
  const end = read.count("eos_token_id", 49_407);
  return {
    vocabulary: read.count("vocab_size", 49_408),
    positions: read.count("max_position_embeddings", 77),
    width: read.count("hidden_size", 512),
    depth: read.count("num_hidden_layers", 12),
    heads: read.count("num_attention_heads", 8),
    hidden: read.count("intermediate_size", 2048),
    activation: read.choice("hidden_act", ["quick_gelu", "gelu"], "quick_gelu"),
    epsilon: read.number("layer_norm_eps", 1e-5),
    projection: architecture === "CLIPTextModel" ? null : read.count("projection_dim", 512),
    ...(end !== 2 && { end }),
  };
}

const tokenTable = "text_model.embeddings.token_embedding.weight";
const positionTable = "text_model.embeddings.position_embedding.weight";
/** The width of a head in all published CLIPs. */
const HEAD_SIZE = 64;

/**
 * Infers a config from the shapes of a checkpoint; fields that they do not determine are those of the preset. A checkpoint of
 * another model gives a config whose weights it lacks.
 */
function shownConfig({ entries }: Weights, name: ClipTextName): ClipTextConfig {
  const preset: ClipTextConfig = clipTextPresets[name];
  const [vocabulary, width] = entries.get(tokenTable)?.shape ?? [];
  if (vocabulary === undefined || width === undefined) return preset;
  return {
    ...preset,
    vocabulary,
    width,
    depth: Math.max(1, blocksUnder({ entries }, "text_model.encoder.layers")),
    positions: entries.get(positionTable)?.shape[0] ?? preset.positions,
    heads: Math.max(1, Math.floor(width / HEAD_SIZE)),
    hidden: entries.get("text_model.encoder.layers.0.mlp.fc1.weight")?.shape[0] ?? preset.hidden,
    projection: entries.get("text_projection.weight")?.shape[0] ?? null,
  };
}

/** Files may also hold a table of positions 0, 1, 2, …, the scale of logits, and CLIP's vision model. */
const keys: KeyMap = {
  keyOf: (name) => name,
  owns: (key) =>
    /^text_(model|projection)\./.test(key) && key !== "text_model.embeddings.position_ids",
};

/**
 * Opens the text encoder in a checkpoint.
 *
 * @param config a config, or the name of a preset to complete what the shapes of the checkpoint show
 * @throws FormatError if the checkpoint is of another model
 */
export function clipTextIn(
  file: Weights,
  config: ClipTextConfig | ClipTextName,
): { readonly config: ClipTextConfig; readonly weights: WeightSource } {
  const known = typeof config === "string" ? shownConfig(file, config) : config;
  requirePlausible(`The config of ${file.name}`, known, file);
  return { config: known, weights: checkedWeights(clipTextParams(known), file, keys) };
}
