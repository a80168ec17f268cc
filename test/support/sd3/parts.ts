/**
 * A Stable Diffusion 3 with random weights for tests: as a folder in diffusers' layout and as a single file
 * under Stability's names, with the same weights.
 */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  castArray,
  type NdArray,
  ndarray,
  sizeOf,
  zeros,
} from "../../../src/engine/arrays/ndarray.ts";
import { fork, normal, type RandomKey, randomKey } from "../../../src/engine/random/random.ts";
import { autoencoderKLConfig } from "../../../src/models/coders/autoencoder-kl-config.ts";
import {
  autoencoderKLKeys,
  autoencoderKLParams,
} from "../../../src/models/coders/autoencoder-kl.ts";
import { writeFileAtomic } from "../../../src/weights/sources/atomic-node.ts";
import { fieldReader } from "../../../src/weights/config-fields.ts";
import { writeSafetensors } from "../../../src/weights/safetensors/file-node.ts";
import { clipTokenizerFiles, t5TokenizerFiles } from "./tokenizers.ts";

type Shapes = ReadonlyMap<string, readonly number[]>;
type Weights = ReadonlyMap<string, NdArray>;

/** Widths and depths; a head is always 64 wide. */
export interface SD3Size {
  readonly depth: number;
  /** Patches along a side of the position table. */
  readonly places: number;
  /** Latents along a side of a picture. */
  readonly latents: number;
  readonly clipL: Encoder;
  readonly clipG: Encoder;
  readonly t5: Encoder;
  /** Channels of the levels of the autoencoder. */
  readonly vae: readonly number[];
}

interface Encoder {
  readonly width: number;
  readonly depth: number;
  readonly vocabulary: number;
}

/** Small enough for tests. */
export const tinySD3: SD3Size = {
  depth: 2,
  places: 12,
  latents: 8,
  clipL: { width: 64, depth: 2, vocabulary: 1000 },
  clipG: { width: 128, depth: 3, vocabulary: 1000 },
  t5: { width: 256, depth: 2, vocabulary: 100 },
  vae: [32, 32, 32, 32],
};

/** Stable Diffusion 3 medium. */
export const mediumSD3: SD3Size = {
  depth: 24,
  places: 192,
  latents: 128,
  clipL: { width: 768, depth: 12, vocabulary: 49408 },
  clipG: { width: 1280, depth: 32, vocabulary: 49408 },
  t5: { width: 4096, depth: 24, vocabulary: 32128 },
  vae: [128, 256, 512, 512],
};

/** Names and shapes of the network under Stability's names, without the prefix of published files. */
export function networkShapes({ depth, places, clipL, clipG, t5 }: SD3Size): Shapes {
  const width = 64 * depth;
  const shapes = new Map<string, readonly number[]>();
  const linear = (name: string, inputs: number, outputs: number) => {
    shapes.set(`${name}.weight`, [outputs, inputs]);
    shapes.set(`${name}.bias`, [outputs]);
  };
  shapes.set("pos_embed", [1, places ** 2, width]);
  shapes.set("x_embedder.proj.weight", [width, 16, 2, 2]);
  shapes.set("x_embedder.proj.bias", [width]);
  linear("t_embedder.mlp.0", 256, width);
  linear("t_embedder.mlp.2", width, width);
  linear("y_embedder.mlp.0", clipL.width + clipG.width, width);
  linear("y_embedder.mlp.2", width, width);
  linear("context_embedder", t5.width, width);
  for (let i = 0; i < depth; i++) {
    for (const part of ["context_block", "x_block"]) {
      const block = `joint_blocks.${i}.${part}`;
      const unfinished = part === "context_block" && i === depth - 1;
      linear(`${block}.attn.qkv`, width, 3 * width);
      linear(`${block}.adaLN_modulation.1`, width, (unfinished ? 2 : 6) * width);
      if (unfinished) continue;
      linear(`${block}.attn.proj`, width, width);
      linear(`${block}.mlp.fc1`, width, 4 * width);
      linear(`${block}.mlp.fc2`, 4 * width, width);
    }
  }
  linear("final_layer.linear", width, 4 * 16);
  linear("final_layer.adaLN_modulation.1", width, 2 * width);
  return shapes;
}

/** Shapes of a CLIP text model, whose feed-forward layers are four times as wide. */
function clipShapes({ width, depth, vocabulary }: Encoder): Shapes {
  const shapes = new Map<string, readonly number[]>();
  const layer = (name: string, weight: readonly number[]) => {
    shapes.set(`${name}.weight`, weight);
    shapes.set(`${name}.bias`, [weight[0]!]);
  };
  shapes.set("text_model.embeddings.token_embedding.weight", [vocabulary, width]);
  shapes.set("text_model.embeddings.position_embedding.weight", [77, width]);
  for (let i = 0; i < depth; i++) {
    const block = `text_model.encoder.layers.${i}`;
    for (const part of ["q", "k", "v", "out"]) {
      layer(`${block}.self_attn.${part}_proj`, [width, width]);
    }
    layer(`${block}.layer_norm1`, [width]);
    layer(`${block}.layer_norm2`, [width]);
    layer(`${block}.mlp.fc1`, [4 * width, width]);
    layer(`${block}.mlp.fc2`, [width, 4 * width]);
  }
  layer("text_model.final_layer_norm", [width]);
  shapes.set("text_projection.weight", [width, width]);
  return shapes;
}

/** Shapes of T5's encoder. */
function t5Shapes({ width, depth, vocabulary }: Encoder): Shapes {
  const shapes = new Map<string, readonly number[]>();
  const inner = (5 * width) / 2;
  shapes.set("shared.weight", [vocabulary, width]);
  for (let i = 0; i < depth; i++) {
    const [attention, forward] = [0, 1].map((layer) => `encoder.block.${i}.layer.${layer}`);
    for (const part of ["q", "k", "v", "o"]) {
      shapes.set(`${attention}.SelfAttention.${part}.weight`, [width, width]);
    }
    if (i === 0) {
      const heads = width / 64;
      shapes.set(`${attention}.SelfAttention.relative_attention_bias.weight`, [32, heads]);
    }
    shapes.set(`${attention}.layer_norm.weight`, [width]);
    shapes.set(`${forward}.DenseReluDense.wi_0.weight`, [inner, width]);
    shapes.set(`${forward}.DenseReluDense.wi_1.weight`, [inner, width]);
    shapes.set(`${forward}.DenseReluDense.wo.weight`, [width, inner]);
    shapes.set(`${forward}.layer_norm.weight`, [width]);
  }
  shapes.set("encoder.final_layer_norm.weight", [width]);
  return shapes;
}

/** Random weights, none of which is zero, so that each of them affects the result. */
function randomWeights(shapes: Shapes, key: RandomKey): Weights {
  const weights = new Map<string, NdArray>();
  for (const [name, shape] of shapes) {
    const values = normal(fork(key, name), shape);
    const [mean, deviation] = spreadOf(name, shape);
    for (let i = 0; i < values.data.length; i++) {
      values.data[i] = mean + deviation * values.data[i]!;
    }
    weights.set(name, values);
  }
  return weights;
}

/** Mean and deviation with which activations keep about the same size. */
export function spreadOf(name: string, shape: readonly number[]): readonly [number, number] {
  if (/norm\d?\.weight$/.test(name)) return [1, 0.1];
  if (shape.length < 2) return [0, 0.1];
  if (/embedding|shared|pos_embed|relative/.test(name)) return [0, 0.5];
  return [0, 1 / Math.sqrt(sizeOf(shape.slice(1)))];
}

function vaeConfigOf({ vae }: SD3Size) {
  return {
    _class_name: "AutoencoderKL",
    block_out_channels: vae,
    down_block_types: vae.map(() => "DownEncoderBlock2D"),
    up_block_types: vae.map(() => "UpDecoderBlock2D"),
    latent_channels: 16,
    layers_per_block: 2,
    norm_num_groups: 32,
    scaling_factor: 1.5305,
    shift_factor: 0.0609,
    use_quant_conv: false,
    use_post_quant_conv: false,
  };
}

interface Parts {
  readonly network: Weights;
  /** Weights under diffusers' names. */
  readonly vae: Weights;
  readonly clipL: Weights;
  readonly clipG: Weights;
  readonly t5: Weights;
}

function partsOf(size: SD3Size, seed: number): Parts {
  const key = (part: string) => fork(randomKey(seed), part);
  const { declared } = autoencoderKLParams(vaeConfig(size));
  const vae = new Map(
    [...declared].map(([name, { tensor }]) => [name, tensor.shape as readonly number[]] as const),
  );
  return {
    network: randomWeights(networkShapes(size), key("network")),
    vae: randomWeights(vae, key("vae")),
    // The projection of the pooled text: present in diffusers' layout, absent in Stability's.
    clipL: new Map([
      ...randomWeights(clipShapes(size.clipL), key("clip_l")),
      ["text_projection.weight", identity(size.clipL.width)],
    ]),
    clipG: randomWeights(clipShapes(size.clipG), key("clip_g")),
    t5: randomWeights(t5Shapes(size.t5), key("t5")),
  };
}

function identity(width: number): NdArray {
  const matrix = zeros("float32", [width, width]);
  for (let i = 0; i < width; i++) matrix.data[i * (width + 1)] = 1;
  return matrix;
}

const vaeConfig = (size: SD3Size) => autoencoderKLConfig(fieldReader("vae", vaeConfigOf(size)));

export interface WriteOptions {
  readonly dtype?: "float32" | "float16" | "bfloat16";
  readonly seed?: number;
  /** Whether the text encoders are included; true by default. */
  readonly encoders?: boolean;
}

/** Writes a single file under Stability's names, with the tokenizers in folders beside it. */
export async function writeSD3File(
  file: string,
  size: SD3Size,
  { dtype = "float32", seed = 1, encoders = true }: WriteOptions = {},
): Promise<void> {
  const { network, vae, clipL, clipG, t5 } = partsOf(size, seed);
  const { keyOf } = autoencoderKLKeys(
    ["first_stage_model.decoder.mid.block_1.norm1.weight"],
    vaeConfig(size),
  );
  const under = (prefix: string, weights: Weights) =>
    [...weights].map(([name, array]) => [prefix + name, array] as const);
  await mkdir(dirname(file), { recursive: true });
  await writeSafetensors(
    file,
    [
      ...under("model.diffusion_model.", network),
      ...[...vae].map(([name, array]) => [keyOf(name), asConvolution(name, array)] as const),
      ...(encoders
        ? [
            ...under("text_encoders.clip_l.transformer.", clipL),
            ...under("text_encoders.clip_g.transformer.", clipG),
            ...under("text_encoders.t5xxl.transformer.", t5),
          ]
        : []),
    ].map(([name, array]) => [name, castArray(array, dtype)] as const),
  );
  await writeTokenizers(dirname(file));
}

/** CompVis has convolutions where diffusers has linear layers. */
function asConvolution(name: string, array: NdArray): NdArray {
  const isLinear = name.includes(".attentions.") && array.shape.length === 2;
  return isLinear ? { ...array, shape: [...array.shape, 1, 1] } : array;
}

/** Writes a StableDiffusion3Pipeline as diffusers saves it. */
export async function writeSD3Folder(
  folder: string,
  size: SD3Size,
  { dtype = "float32", seed = 1, encoders = true }: WriteOptions = {},
): Promise<void> {
  const parts = partsOf(size, seed);
  const json = (path: string, content: object) =>
    writeText(join(folder, path), JSON.stringify(content));
  const weights = async (path: string, named: Iterable<readonly [string, NdArray]>) => {
    const cast = [...named].map(([name, array]) => [name, castArray(array, dtype)] as const);
    await writeSafetensors(join(folder, path), cast);
  };
  const encoder = (name: string) => (encoders ? ["transformers", name] : [null, null]);
  await json("model_index.json", {
    _class_name: "StableDiffusion3Pipeline",
    scheduler: ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    text_encoder: encoder("CLIPTextModelWithProjection"),
    text_encoder_2: encoder("CLIPTextModelWithProjection"),
    text_encoder_3: encoder("T5EncoderModel"),
    tokenizer: encoder("CLIPTokenizer"),
    tokenizer_2: encoder("CLIPTokenizer"),
    tokenizer_3: encoder("T5TokenizerFast"),
    transformer: ["diffusers", "SD3Transformer2DModel"],
    vae: ["diffusers", "AutoencoderKL"],
  });
  await json("scheduler/scheduler_config.json", {
    _class_name: "FlowMatchEulerDiscreteScheduler",
    num_train_timesteps: 1000,
    shift: 3,
  });
  await json("transformer/config.json", {
    _class_name: "SD3Transformer2DModel",
    attention_head_dim: 64,
    caption_projection_dim: 64 * size.depth,
    in_channels: 16,
    joint_attention_dim: size.t5.width,
    num_attention_heads: size.depth,
    num_layers: size.depth,
    out_channels: 16,
    patch_size: 2,
    pooled_projection_dim: size.clipL.width + size.clipG.width,
    pos_embed_max_size: size.places,
    sample_size: size.latents,
  });
  await weights("transformer/diffusion_pytorch_model.safetensors", diffusersNetwork(parts.network));
  await json("vae/config.json", vaeConfigOf(size));
  await weights("vae/diffusion_pytorch_model.safetensors", parts.vae);
  if (!encoders) return;
  for (const [name, { width, depth, vocabulary }, arrays, activation] of [
    ["text_encoder", size.clipL, parts.clipL, "quick_gelu"],
    ["text_encoder_2", size.clipG, parts.clipG, "gelu"],
  ] as const) {
    await json(`${name}/config.json`, {
      architectures: ["CLIPTextModelWithProjection"],
      model_type: "clip_text_model",
      hidden_act: activation,
      hidden_size: width,
      intermediate_size: 4 * width,
      max_position_embeddings: 77,
      num_attention_heads: width / 64,
      num_hidden_layers: depth,
      projection_dim: width,
      vocab_size: vocabulary,
      bos_token_id: 0,
      eos_token_id: 2,
      pad_token_id: 1,
      layer_norm_eps: 1e-5,
    });
    await weights(`${name}/model.safetensors`, arrays);
  }
  await json("text_encoder_3/config.json", {
    architectures: ["T5EncoderModel"],
    model_type: "t5",
    d_ff: (5 * size.t5.width) / 2,
    d_kv: 64,
    d_model: size.t5.width,
    dense_act_fn: "gelu_new",
    feed_forward_proj: "gated-gelu",
    is_gated_act: true,
    layer_norm_epsilon: 1e-6,
    num_heads: size.t5.width / 64,
    num_layers: size.t5.depth,
    relative_attention_max_distance: 128,
    relative_attention_num_buckets: 32,
    vocab_size: size.t5.vocabulary,
  });
  await weights("text_encoder_3/model.safetensors", parts.t5);
  await writeTokenizers(folder);
}

async function writeTokenizers(folder: string): Promise<void> {
  for (const [name, files] of [
    ["tokenizer", clipTokenizerFiles("end")],
    ["tokenizer_2", clipTokenizerFiles("!")],
    ["tokenizer_3", t5TokenizerFiles()],
  ] as const) {
    for (const [file, content] of Object.entries(files)) {
      await writeText(join(folder, name, file), content);
    }
  }
}

async function writeText(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, new TextEncoder().encode(text));
}

/** Converts Stability's names as diffusers' own script does. */
function* diffusersNetwork(network: Weights): Generator<readonly [string, NdArray]> {
  const depth = [...network.keys()].filter((key) => key.endsWith("x_block.attn.qkv.weight")).length;
  for (const [name, array] of network) {
    const [, block, part, layer] =
      /^joint_blocks\.(\d+)\.(x|context)_block\.(.*)$/.exec(name) ?? [];
    if (block === undefined) {
      const key = plainNames.reduce(
        (renamed, [theirs, ours]) => renamed.replace(theirs, ours),
        name,
      );
      yield [key, name.startsWith("final_layer.adaLN") ? swapped(array) : array];
      continue;
    }
    const ofText = part === "context";
    const scope = `transformer_blocks.${block}`;
    const kind = layer!.slice(layer!.lastIndexOf("."));
    if (layer!.startsWith("attn.qkv")) {
      const names = ofText ? ["add_q_proj", "add_k_proj", "add_v_proj"] : ["to_q", "to_k", "to_v"];
      const thirds = rowsIn(array, 3);
      for (const [i, each] of names.entries()) yield [`${scope}.attn.${each}${kind}`, thirds[i]!];
    } else if (layer!.startsWith("attn.proj")) {
      yield [`${scope}.attn.${ofText ? "to_add_out" : "to_out.0"}${kind}`, array];
    } else if (layer!.startsWith("adaLN")) {
      const unfinished = ofText && Number(block) === depth - 1;
      yield [
        `${scope}.norm1${ofText ? "_context" : ""}.linear${kind}`,
        unfinished ? swapped(array) : array,
      ];
    } else {
      const inner = layer!.startsWith("mlp.fc1") ? "net.0.proj" : "net.2";
      yield [`${scope}.ff${ofText ? "_context" : ""}.${inner}${kind}`, array];
    }
  }
}

const plainNames = [
  [/^pos_embed$/, "pos_embed.pos_embed"],
  [/^x_embedder\./, "pos_embed."],
  [/^t_embedder\.mlp\.0/, "time_text_embed.timestep_embedder.linear_1"],
  [/^t_embedder\.mlp\.2/, "time_text_embed.timestep_embedder.linear_2"],
  [/^y_embedder\.mlp\.0/, "time_text_embed.text_embedder.linear_1"],
  [/^y_embedder\.mlp\.2/, "time_text_embed.text_embedder.linear_2"],
  [/^final_layer\.linear/, "proj_out"],
  [/^final_layer\.adaLN_modulation\.1/, "norm_out.linear"],
] as const;

function rowsIn({ shape, data }: NdArray, count: number): NdArray[] {
  const [rows = 0, ...rest] = shape;
  const size = (rows / count) * sizeOf(rest);
  const values = data as Float32Array;
  return Array.from({ length: count }, (_, i) =>
    ndarray("float32", [rows / count, ...rest], values.slice(i * size, (i + 1) * size)),
  );
}

/** Shift and scale are in the opposite order. */
function swapped(array: NdArray): NdArray {
  const [shift, scale] = rowsIn(array, 2);
  const data = new Float32Array(array.data.length);
  data.set(scale!.data as Float32Array);
  data.set(shift!.data as Float32Array, data.length / 2);
  return { ...array, data };
}
