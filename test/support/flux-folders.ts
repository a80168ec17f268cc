/** Small FLUX.1, FLUX.2 [klein], Z-Image and MiniT2I with random weights: as diffusers saves them, and as single files of the original. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { rowsOf, stackRows } from "../../src/diffusion/arrays.ts";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { mapValues, prefixed } from "../../src/engine/records.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { autoencoderKLConfig } from "../../src/models/coders/autoencoder-kl-config.ts";
import { autoencoderKLKeys, autoencoderKLParams } from "../../src/models/coders/autoencoder-kl.ts";
import { families } from "../../src/models/families.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { clipText, clipTextConfig } from "../../src/models/text-encoders/clip-text.ts";
import { qwen3Config, qwen3Params } from "../../src/models/text-encoders/qwen3.ts";
import { t5EncoderConfig, t5EncoderParams } from "../../src/models/text-encoders/t5-encoder.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { createParams, type ParamsRoot } from "../../src/nn/params.ts";
import { renamed, type Renaming } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { ggufChunks, type GGUFMetadata, type GGUFTensor } from "../../src/weights/gguf/write.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { spreadOf } from "./sd3/parts.ts";
import { clipTokenizerFiles, t5TokenizerFiles } from "./sd3/tokenizers.ts";

type Arrays = Readonly<Record<string, NdArray>>;
type Fields = Readonly<Record<string, unknown>>;

/** The parts of a folder: configs by folder, as diffusers and transformers write them. */
export interface SmallModel {
  readonly family: string;
  readonly index: Fields;
  readonly transformer: Fields;
  /** Missing where the network draws pixels. */
  readonly vae?: Fields;
  readonly scheduler: Fields;
  readonly encoders: Readonly<Record<string, Fields>>;
}

const levels = (widths: readonly number[]) => ({
  block_out_channels: widths,
  down_block_types: widths.map(() => "DownEncoderBlock2D"),
  up_block_types: widths.map(() => "UpDecoderBlock2D"),
  layers_per_block: 1,
  norm_num_groups: 32,
});
const flow = { _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 1000 };
const fluxVae = {
  _class_name: "AutoencoderKL",
  ...levels([32, 32]),
  latent_channels: 16,
  scaling_factor: 0.3611,
  shift_factor: 0.1159,
  use_quant_conv: false,
  use_post_quant_conv: false,
};
/** A head is as wide as in the published models, whose files show no other width. */
const oneHead = { num_attention_heads: 1, attention_head_dim: 128, num_layers: 1 };
/** Sizes that shapes do not show are those of Qwen3-4B. */
const qwen3 = (layers: number) => ({
  model_type: "qwen3",
  vocab_size: 300,
  hidden_size: 8,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  intermediate_size: 12,
  num_hidden_layers: layers,
  rope_theta: 1e6,
});

const t5 = {
  model_type: "t5",
  feed_forward_proj: "gated-gelu",
  relative_attention_num_buckets: 32,
  vocab_size: 100,
  d_model: 32,
  d_kv: 8,
  d_ff: 48,
  num_layers: 1,
  num_heads: 4,
};

const flux1 = (guidance: boolean): SmallModel => ({
  family: "flux",
  index: { _class_name: "FluxPipeline" },
  transformer: {
    _class_name: "FluxTransformer2DModel",
    ...oneHead,
    num_single_layers: 1,
    joint_attention_dim: 32,
    pooled_projection_dim: 64,
    guidance_embeds: guidance,
  },
  vae: fluxVae,
  scheduler: { ...flow, shift: 1, use_dynamic_shifting: guidance },
  encoders: {
    text_encoder: {
      model_type: "clip_text_model",
      vocab_size: 1000,
      hidden_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 1,
      intermediate_size: 48,
      max_position_embeddings: 77,
      eos_token_id: 2,
    },
    text_encoder_2: t5,
  },
});

export const smallModels = {
  schnell: flux1(false),
  dev: flux1(true),
  klein: {
    family: "flux2",
    index: { _class_name: "Flux2KleinPipeline", is_distilled: true },
    transformer: {
      _class_name: "Flux2Transformer2DModel",
      ...oneHead,
      num_single_layers: 1,
      in_channels: 32,
      joint_attention_dim: 24,
      guidance_embeds: false,
    },
    vae: { _class_name: "AutoencoderKLFlux2", ...levels([32, 32]), latent_channels: 8 },
    scheduler: { ...flow, shift: 3, use_dynamic_shifting: true },
    encoders: { text_encoder: qwen3(28) },
  },
  zImage: {
    family: "z-image",
    index: { _class_name: "ZImagePipeline" },
    transformer: {
      _class_name: "ZImageTransformer2DModel",
      dim: 128,
      n_heads: 1,
      n_kv_heads: 1,
      n_layers: 1,
      n_refiner_layers: 1,
      cap_feat_dim: 8,
      axes_dims: [32, 48, 48],
      axes_lens: [1536, 512, 512],
    },
    vae: fluxVae,
    scheduler: { ...flow, shift: 3, use_dynamic_shifting: false },
    encoders: { text_encoder: qwen3(3) },
  },
  miniT2I: {
    family: "minit2i",
    index: {
      _class_name: "MiniT2ITextToImagePipeline",
      scheduler: ["pipeline", "MiniT2IFlowMatchScheduler"],
      transformer: ["pipeline", "MiniT2IMMJiTModel"],
    },
    transformer: {
      _class_name: "MiniT2IMMJiTModel",
      image_size: 256,
      patch_size: 8,
      txt_input_size: 32,
      hidden_size: 64,
      txt_hidden_size: 64,
      cond_vec_size: 64,
      depth_double: 2,
      num_heads: 2,
      head_dim: 32,
      pca_channels: 32,
    },
    scheduler: { _class_name: "MiniT2IFlowMatchScheduler", num_inference_steps: 100 },
    encoders: { text_encoder: t5 },
  },
} satisfies Record<string, SmallModel>;

/** The same model with more tokens than its tokenizers know, as wide as its tables are. */
export function withVocabulary(model: SmallModel, tokens: number): SmallModel {
  const encoders = mapValues(model.encoders, (fields) => ({ ...fields, vocab_size: tokens }));
  return { ...model, encoders };
}

/** Computes what depends on a model once. */
function once<T>(compute: (model: SmallModel) => T): (model: SmallModel) => T {
  const known = new WeakMap<SmallModel, T>();
  return (model) => {
    const found = known.get(model) ?? compute(model);
    known.set(model, found);
    return found;
  };
}

/** The network's weights under the names of the original code. */
export const originalWeights = once(({ family, transformer }: SmallModel): Arrays => {
  const { diffusers } = families.get(family)!;
  const config = diffusers!.config(fieldReader("transformer", transformer));
  return randomWeights(traceNetwork({ kind: family, ...config }).params, 1);
});

/** The numbers of each part, whatever the layout in which they are written. */
const partsOf = once((model: SmallModel) => {
  const coder = model.vae && autoencoderKLConfig(fieldReader("vae", model.vae));
  return {
    vae: coder && { coder, weights: randomWeights(autoencoderKLParams(coder), 2) },
    encoders: mapValues(model.encoders, (fields) => randomWeights(encoderParams(fields), 3)),
  };
});

type Parts = ReturnType<typeof partsOf>;

function randomWeights({ declared }: Pick<ParamsRoot, "declared">, seed: number): Arrays {
  const key = randomKey(seed);
  return Object.fromEntries(
    [...declared].map(([name, { tensor }]) => {
      const shape = tensor.shape as readonly number[];
      const [mean, deviation] = spreadOf(name.replace(/scale$/, "norm.weight"), shape);
      const variance = name.endsWith("running_var");
      const values = normal(fork(key, name), shape);
      const value = (x: number) => (variance ? 1 + 0.1 * x * x : mean + deviation * x);
      return [name, { ...values, data: values.data.map(value) }];
    }),
  );
}

/** The weights as diffusers has them: projections apart, and the last norm's scale before its shift. */
function diffusersWeights(model: SmallModel): Arrays {
  const { keys } = families.get(model.family)!.diffusers!;
  const split: Record<string, NdArray> = {};
  for (const [own, array] of Object.entries(originalWeights(model))) {
    const name = keys.keyOf(own);
    const rows = array.shape[0]!;
    const third = (part: number, of = rows / 3) => rowsOf(array, part * of, of);
    if (/\.(to_qkv|add_qkv_proj)\./.test(name)) {
      for (const [i, part] of ["q", "k", "v"].entries()) {
        split[name.replace("to_qkv", `to_${part}`).replace("add_qkv", `add_${part}`)] = third(i);
      }
    } else if (/^single_\w+\.\d+\.linear1\./.test(name)) {
      // Queries, keys, values, and four times as much for the feed-forward part.
      for (const [i, part] of ["attn.to_q", "attn.to_k", "attn.to_v"].entries()) {
        split[name.replace("linear1", part)] = third(i, rows / 7);
      }
      split[name.replace("linear1", "proj_mlp")] = rowsOf(array, (3 * rows) / 7, (4 * rows) / 7);
    } else if (name.startsWith("norm_out.linear.")) {
      split[name] = stackRows([rowsOf(array, rows / 2, rows / 2), rowsOf(array, 0, rows / 2)]);
    } else split[name] = array;
  }
  return split;
}

/** The numbering of bytes as byte-level tokenizers write them, and Qwen3's tokens of conversations. */
function qwen3TokenizerFiles(): Readonly<Record<string, string>> {
  const { "vocab.json": clip } = clipTokenizerFiles("end");
  const bytes = Object.keys(JSON.parse(clip!) as Record<string, number>).slice(0, 256);
  const special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
  const thoughts = ["<think>", "</think>"];
  const added = [...special, ...thoughts].map((content, i) => ({
    id: 256 + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: special.includes(content),
  }));
  const level = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: true,
  };
  return {
    "tokenizer.json": JSON.stringify({
      version: "1.0",
      added_tokens: added,
      normalizer: { type: "NFC" },
      pre_tokenizer: level,
      post_processor: level,
      decoder: level,
      model: {
        type: "BPE",
        vocab: Object.fromEntries(bytes.map((unit, id) => [unit, id])),
        merges: [],
        byte_fallback: false,
      },
    }),
    "tokenizer_config.json": JSON.stringify({
      tokenizer_class: "Qwen2Tokenizer",
      pad_token: "<|endoftext|>",
    }),
  };
}

/** Declares the weights of an encoder by its config. */
function encoderParams(fields: Fields): ParamsRoot {
  const read = fieldReader("text_encoder", fields);
  if (fields["model_type"] === "qwen3") return qwen3Params(qwen3Config(read));
  if (fields["model_type"] === "t5") return t5EncoderParams(t5EncoderConfig(read));
  const params = createParams();
  clipText(params, { ids: input("ids", [batch, 77], "int64") }, clipTextConfig(read));
  return params;
}

const tokenizersOf: Readonly<Record<string, () => Readonly<Record<string, string>>>> = {
  clip_text_model: () => clipTokenizerFiles("end"),
  t5: t5TokenizerFiles,
  qwen3: qwen3TokenizerFiles,
};

/** Writes files whose folders are made where they lack. */
function writerIn(folder: string) {
  const made = async (file: string) => {
    const target = path.join(folder, file);
    await mkdir(path.dirname(target), { recursive: true });
    return target;
  };
  const text = async (file: string, content: string) =>
    writeFileAtomic(await made(file), new TextEncoder().encode(content));
  return {
    text,
    json: (file: string, content: object) => text(file, JSON.stringify(content)),
    weights: async (file: string, arrays: Arrays) =>
      writeSafetensors(await made(`${file}.safetensors`), Object.entries(arrays)),
    gguf: async (file: string, arrays: Arrays, metadata: GGUFMetadata) =>
      writeFileAtomic(await made(`${file}.gguf`), ggufChunks(metadata, float32Tensors(arrays))),
  };
}

function float32Tensors(arrays: Arrays): readonly GGUFTensor[] {
  return Object.entries(arrays).map(([name, { shape, data }]) => ({
    name,
    type: "F32",
    shape,
    bytes: () => [new Uint8Array(data.buffer, data.byteOffset, data.byteLength)],
  }));
}

type Writer = ReturnType<typeof writerIn>;

/** The tokenizers' folders, as diffusers names them. */
async function writeTokenizers({ text }: Writer, model: SmallModel): Promise<void> {
  for (const [name, fields] of Object.entries(model.encoders)) {
    const tokenizer = name.replace("text_encoder", "tokenizer");
    for (const [file, content] of Object.entries(tokenizersOf[String(fields["model_type"])]!())) {
      await text(`${tokenizer}/${file}`, content);
    }
  }
}

/** Writes a folder in diffusers' layout. */
export async function writeSmallFolder(folder: string, model: SmallModel): Promise<void> {
  const writer = writerIn(folder);
  const { json, weights } = writer;
  const { vae, encoders } = partsOf(model);
  const parts = Object.keys(model.encoders).map((name) => [name, ["transformers", "Model"]]);
  await json("model_index.json", { ...model.index, ...Object.fromEntries(parts) });
  await json("scheduler/scheduler_config.json", model.scheduler);
  await json("transformer/config.json", model.transformer);
  await weights("transformer/diffusion_pytorch_model", diffusersWeights(model));
  if (vae) {
    await json("vae/config.json", model.vae!);
    await weights("vae/diffusion_pytorch_model", vae.weights);
  }
  for (const [name, fields] of Object.entries(model.encoders)) {
    await json(`${name}/config.json`, fields);
    await weights(`${name}/model`, encoders[name]!);
  }
  await writeTokenizers(writer, model);
}

/** The names of the encoders' files, by their architecture. */
const encoderFiles: Readonly<Record<string, string>> = {
  clip_text_model: "clip_l",
  t5: "t5xxl_fp16",
  qwen3: "qwen_3_4b",
};

/**
 * Writes the folders of ComfyUI, which hold the numbers of `writeSmallFolder`, with the folders of the tokenizers beside them.
 *
 * @param form.prefix of the names of the network
 * @param form.gguf writes the network and a Qwen3 as GGUF, and no tokenizer for the latter but that in its metadata
 */
export async function writeSmallSplit(
  folder: string,
  model: SmallModel,
  form: { readonly prefix?: string; readonly gguf?: boolean } = {},
): Promise<void> {
  const writer = writerIn(folder);
  const { weights, gguf } = writer;
  const { vae, encoders } = partsOf(model);
  const network = prefixed(form.prefix ?? "", comfyWeights(model));
  const networkFile = `diffusion_models/${model.family}`;
  if (form.gguf) await gguf(networkFile, network, { "general.architecture": model.family });
  else await weights(networkFile, network);
  if (vae) await weights("vae/ae", originalAutoencoder(vae));
  let whole = true;
  for (const [name, { model_type: type }] of Object.entries(model.encoders)) {
    const file = `text_encoders/${encoderFiles[String(type)]!}`;
    const own = prefixed(type === "qwen3" ? "model." : "", encoders[name]!);
    if (form.gguf && type === "qwen3") {
      whole = false;
      await gguf(file, llamaWeights(own), qwen3Metadata());
    } else await weights(file, own);
  }
  if (whole) await writeTokenizers(writer, model);
}

/** Writes a file of a whole model as ComfyUI saves its checkpoints, with the numbers of `writeSmallFolder`, and the tokenizers beside it. */
export async function writeSmallCheckpoint(
  folder: string,
  file: string,
  model: SmallModel,
): Promise<void> {
  const writer = writerIn(folder);
  const { vae, encoders } = partsOf(model);
  const names: Readonly<Record<string, string>> = {
    clip_text_model: "clip_l.transformer.",
    t5: model.vae ? "t5xxl.transformer." : "t5.transformer.",
    qwen3: "qwen3_4b.transformer.model.",
  };
  const texts = Object.entries(model.encoders).map(([name, { model_type: type }]) =>
    prefixed(`text_encoders.${names[String(type)]!}`, encoders[name]!),
  );
  await writer.weights(file, {
    ...prefixed("model.diffusion_model.", comfyWeights(model)),
    ...Object.assign({}, ...texts),
    ...(vae && prefixed("vae.", originalAutoencoder(vae))),
  });
  await writeTokenizers(writer, model);
}

/** An autoencoder under the names of the original; that of FLUX.2 keeps its 1×1 convolutions inside. */
function originalAutoencoder({ coder, weights }: NonNullable<Parts["vae"]>): Arrays {
  const inside = coder.packing ? ["encoder.quant_conv.weight"] : [];
  const { keyOf } = autoencoderKLKeys(["encoder.mid.block_1.norm1.weight", ...inside], coder);
  return Object.fromEntries(Object.entries(weights).map(([name, array]) => [keyOf(name), array]));
}

/** The network as ComfyUI has it; only the names of Z-Image, whose projections are joined, are not the original's. */
function comfyWeights(model: SmallModel): Arrays {
  const original = originalWeights(model);
  if (model.family !== "z-image") return original;
  const found: Record<string, NdArray> = {};
  for (const [own, array] of Object.entries(original)) {
    const name = renamed(own, [
      [/^all_(x_embedder|final_layer)\.2-1\./, "$1."],
      [/\.to_out\.0\./, ".out."],
      [/\.norm_(q|k)\./, ".$1_norm."],
      [/\.to_q\./, ".qkv."],
    ]);
    if (/\.to_[kv]\./.test(own)) continue;
    const parts = ["to_q", "to_k", "to_v"].map((part) => original[own.replace("to_q", part)]!);
    found[name] = name.includes(".qkv.") ? stackRows(parts) : array;
  }
  return found;
}

/** Names of transformers → those of llama.cpp. */
const llamaNames: Renaming = [
  [/^model\.embed_tokens\./, "token_embd."],
  [/^model\.norm\./, "output_norm."],
  [/^model\.layers\./, "blk."],
  [/input_layernorm/, "attn_norm"],
  [/post_attention_layernorm/, "ffn_norm"],
  [/self_attn\.(q|k)_norm/, "attn_$1_norm"],
  [/self_attn\.o_proj/, "attn_output"],
  [/self_attn\.(q|k|v)_proj/, "attn_$1"],
  [/mlp\.(\w+)_proj/, "ffn_$1"],
];

/** The name that llama.cpp gives a weight of Qwen3. */
export const llamaWeightNames = (name: string): string =>
  renamed(name.startsWith("model.") ? name : `model.${name}`, llamaNames);

/** A Qwen3 under the names of llama.cpp. */
function llamaWeights(weights: Arrays): Arrays {
  return Object.fromEntries(
    Object.entries(weights).map(([name, array]) => [llamaWeightNames(name), array]),
  );
}

/** The metadata with which llama.cpp describes Qwen3's tokenizer. */
export function qwen3Metadata(): GGUFMetadata {
  const { "tokenizer.json": text } = qwen3TokenizerFiles();
  const { model, added_tokens: added } = JSON.parse(text!) as {
    model: { vocab: Record<string, number> };
    added_tokens: readonly { content: string; special: boolean }[];
  };
  const bytes = Object.keys(model.vocab);
  const types = [...bytes.map(() => 1), ...added.map(({ special }) => (special ? 3 : 4))];
  return {
    "general.architecture": "qwen3",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [...bytes, ...added.map(({ content }) => content)],
    "tokenizer.ggml.token_type": Int32Array.from(types),
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.padding_token_id": bytes.length,
  };
}
