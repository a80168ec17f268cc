/**
 * CLIP's text encoder (Radford et al., 2021), as OpenAI trained it (CLIP-L) and as OpenCLIP did (CLIP-G: Cherti et al.,
 * 2023): a causal transformer whose token at the text's end stands for the whole text.
 *
 * Diffusion models are told its tokens one layer before the last, not normed. Weights bear transformers' names.
 */
import { ShapeError } from "../../engine/errors.ts";
import { attention, constant, constantOf, input } from "../../engine/graph/functional.ts";
import { ndarray } from "../../engine/arrays/ndarray.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { linear } from "../../nn/linear.ts";
import { norm } from "../../nn/norm.ts";
import { createParams, normal, type Params, type ParamsRoot } from "../../nn/params.ts";
import { checkedWeights, type KeyMap } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";

export interface ClipTextConfig {
  /** Rows of the table of tokens. */
  readonly vocabulary: number;
  /** Most tokens of a text. */
  readonly positions: number;
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  /** Width of the feed-forward layers. */
  readonly hidden: number;
  readonly activation: ClipActivation;
  readonly epsilon: number;
  /** Width of the projected text; null where nothing projects it. */
  readonly projection: number | null;
  /** The token at a text's end; the largest in it unless given. */
  readonly end?: number | undefined;
}

const activations = {
  /** x·sigmoid(1.702x) (Hendrycks & Gimpel, 2016, section 2). */
  quick_gelu: (x: Tensor) => x.mul(x.mul(1.702).sigmoid()),
  gelu: (x: Tensor) => x.gelu("none"),
};
type ClipActivation = keyof typeof activations;

export const clipTextPresets = {
  "CLIP-L": {
    vocabulary: 49_408,
    positions: 77,
    width: 768,
    depth: 12,
    heads: 12,
    hidden: 3072,
    activation: "quick_gelu",
    epsilon: 1e-5,
    projection: 768,
  },
  "CLIP-G": {
    vocabulary: 49_408,
    positions: 77,
    width: 1280,
    depth: 32,
    heads: 20,
    hidden: 5120,
    activation: "gelu",
    epsilon: 1e-5,
    projection: 1280,
  },
} satisfies Record<string, ClipTextConfig>;

export type ClipTextName = keyof typeof clipTextPresets;

/** What a text becomes. */
export interface ClipText {
  /** The last layer, normed: [B, L, width]. */
  readonly last: Tensor;
  /** The layer before it: [B, L, width]. */
  readonly penultimate: Tensor;
  readonly penultimateNormed: Tensor;
  /** The normed token at the text's end: [B, width]. */
  readonly pooled: Tensor;
  /** The same projected, [B, projection]; itself where nothing projects it. */
  readonly projected: Tensor;
}

/**
 * Tokens of texts → what they mean.
 *
 * @param inputs.ids [B, L], int64, with the token at the text's end among them
 * @throws ShapeError when there are more tokens than positions
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
      `This CLIP reads at most ${positions} tokens, not ${length}; cut the text off.`,
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
  const projected =
    projection === null
      ? pooled
      : linear(p.at("text_projection"), pooled, projection, { bias: false });
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

/** Hides from each token those behind it, [1, 1, L, L]: −10⁴ as a score, after which a softmax gives exactly 0. */
function causalBias(length: number): Tensor {
  const places = [...new Array(length).keys()];
  const rows = places.flatMap((row) => places.map((column) => (column > row ? -10_000 : 0)));
  return constant(ndarray("float32", [1, 1, length, length], rows));
}

/** The token [B, C] at each text's end; of several, the first. */
function atEnd(x: Tensor, ids: Tensor, { end }: ClipTextConfig): Tensor {
  const place =
    end === undefined
      ? ids.argmax(-1)
      : ids
          .equal(constantOf([end], [], "int64"))
          .cast("float32")
          .argmax(-1); // [B]
  return place.oneHot(ids.size(1)).unsqueeze(1).matmul(x).squeeze(1);
}

/** Every weight, for `checkKeys`. */
export function clipTextParams(config: ClipTextConfig): ParamsRoot {
  const p = createParams();
  clipText(p, { ids: input("ids", [batch, config.positions], "int64") }, config);
  return p;
}

/**
 * The config.json of transformers' CLIPTextModel or CLIPTextModelWithProjection; what it leaves out has transformers'
 * default.
 *
 * @throws FormatError that names the field at fault
 */
export function clipTextConfig(read: FieldReader): ClipTextConfig {
  const [architecture] = read.choices(
    "architectures",
    ["CLIPTextModel", "CLIPTextModelWithProjection"],
    ["CLIPTextModelWithProjection"],
  );
  // Before transformers read this field it was always 2, and the largest token was taken instead.
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
/** As in all published CLIPs. */
const HEAD_SIZE = 64;

/**
 * Sizes as a checkpoint's shapes show them, and of the preset what they do not show; where it is none of a CLIP, a config
 * that it does not fit.
 */
function shownConfig({ entries }: Weights, name: ClipTextName): ClipTextConfig {
  const preset: ClipTextConfig = clipTextPresets[name];
  const [vocabulary, width] = entries.get(tokenTable)?.shape ?? [];
  if (vocabulary === undefined || width === undefined) return preset;
  let depth = 0;
  while (entries.has(`text_model.encoder.layers.${depth}.layer_norm1.weight`)) depth++;
  return {
    ...preset,
    vocabulary,
    width,
    depth: Math.max(1, depth),
    positions: entries.get(positionTable)?.shape[0] ?? preset.positions,
    heads: Math.max(1, Math.floor(width / HEAD_SIZE)),
    hidden: entries.get("text_model.encoder.layers.0.mlp.fc1.weight")?.shape[0] ?? preset.hidden,
    projection: entries.get("text_projection.weight")?.shape[0] ?? null,
  };
}

/** Beside the text encoder's, files hold positions 0, 1, 2, … as a table, a scale of logits, or CLIP's half that sees. */
const keys: KeyMap = {
  keyOf: (name) => name,
  owns: (key) =>
    /^text_(model|projection)\./.test(key) && key !== "text_model.embeddings.position_ids",
};

/**
 * The text encoder in a checkpoint of one, as a config of transformers describes it or, without one, as its shapes do.
 *
 * @param config where there is none: which of the CLIPs it is, which no shape shows
 * @throws FormatError when the weights are of another
 */
export function clipTextIn(
  file: Weights,
  config: ClipTextConfig | ClipTextName,
): { readonly config: ClipTextConfig; readonly weights: WeightSource } {
  const known = typeof config === "string" ? shownConfig(file, config) : config;
  return { config: known, weights: checkedWeights(clipTextParams(known), file, keys) };
}
