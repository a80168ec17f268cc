/** A MiniT2I with random weights as diffusers saves it, at any size. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { miniT2IConfig } from "../../src/models/minit2i/checkpoint.ts";
import { type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { t5EncoderConfig, t5EncoderParams } from "../../src/models/text-encoders/t5-encoder.ts";
import type { ParamsRoot } from "../../src/nn/params.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { spreadOf } from "./sd3/parts.ts";
import { t5TokenizerFiles } from "./sd3/tokenizers.ts";

/** The arguments of MMJiTConfig and of T5's config that differ from the published ones. */
export interface MiniT2ISize {
  readonly transformer: Readonly<Record<string, unknown>>;
  readonly encoder: Readonly<Record<string, unknown>>;
}

/** Small enough for tests. */
export const tinyMiniT2I: MiniT2ISize = {
  transformer: {
    image_size: 16,
    patch_size: 4,
    txt_input_size: 32,
    hidden_size: 48,
    txt_hidden_size: 48,
    cond_vec_size: 24,
    depth_double: 3,
    num_heads: 4,
    head_dim: 12,
    pca_channels: 20,
    prompt_length: 12,
  },
  encoder: { vocab_size: 100, d_model: 32, d_kv: 8, d_ff: 48, num_layers: 2, num_heads: 4 },
};

const encoderDefaults = {
  model_type: "t5",
  feed_forward_proj: "gated-gelu",
  relative_attention_num_buckets: 32,
};

/** The network of such a folder. */
function miniT2INetwork({ transformer }: MiniT2ISize): NetworkConfig {
  return { kind: "minit2i", ...miniT2IConfig(fieldReader("transformer", transformer)) };
}

/** Weights of which none is zero, so that everything counts. */
export function miniT2IWeights(size: MiniT2ISize, seed = 1): Record<string, NdArray> {
  return randomWeights(traceNetwork(miniT2INetwork(size)).params, seed);
}

/** Weights of which none is zero, by the names that a model gives them. */
export function randomWeights({ declared }: ParamsRoot, seed: number): Record<string, NdArray> {
  const key = randomKey(seed);
  return Object.fromEntries(
    [...declared].map(([name, { tensor }]) => {
      const shape = tensor.shape as readonly number[];
      const [mean, deviation] = spreadOf(name, shape);
      const values = normal(fork(key, name), shape);
      return [name, { ...values, data: values.data.map((x) => mean + deviation * x) }];
    }),
  );
}

/** Writes files into a folder, which is made when it is needed. */
export function filesIn(folder: string) {
  const text = async (file: string, content: string) => {
    const target = path.join(folder, file);
    await mkdir(path.dirname(target), { recursive: true });
    await writeFileAtomic(target, new TextEncoder().encode(content));
  };
  return { text, json: (file: string, content: object) => text(file, JSON.stringify(content)) };
}

/** Writes a T5 or umT5 with random weights, and a tokenizer for it, as transformers does. */
export async function writeT5Folders(folder: string, encoder: object): Promise<void> {
  const { text, json } = filesIn(folder);
  await json("text_encoder/config.json", encoder);
  const config = t5EncoderConfig(fieldReader("text_encoder", encoder as Record<string, unknown>));
  const weights = Object.entries(randomWeights(t5EncoderParams(config), 2));
  await writeSafetensors(path.join(folder, "text_encoder/model.safetensors"), weights);
  for (const [name, content] of Object.entries(t5TokenizerFiles())) {
    await text(`tokenizer/${name}`, content);
  }
}

/** Writes the folder. */
export async function writeMiniT2IFolder(folder: string, size: MiniT2ISize): Promise<void> {
  const { json } = filesIn(folder);
  await json("model_index.json", {
    _class_name: "MiniT2ITextToImagePipeline",
    scheduler: ["pipeline", "MiniT2IFlowMatchScheduler"],
    text_encoder: ["transformers", "T5EncoderModel"],
    tokenizer: ["transformers", "T5TokenizerFast"],
    transformer: ["pipeline", "MiniT2IMMJiTModel"],
  });
  await json("scheduler/scheduler_config.json", {
    _class_name: "MiniT2IFlowMatchScheduler",
    num_inference_steps: 4,
    t_lognorm_mu: -0.8,
    t_lognorm_sigma: 0.8,
    train_t_schedule: "lognorm",
  });
  await json("transformer/config.json", {
    _class_name: "MiniT2IMMJiTModel",
    ...size.transformer,
  });
  const network = Object.entries(miniT2IWeights(size)).map(
    ([name, array]) => [`model.net.${name}`, array] as const,
  );
  await writeSafetensors(
    path.join(folder, "transformer/diffusion_pytorch_model.safetensors"),
    network,
  );
  await writeT5Folders(folder, { ...encoderDefaults, ...size.encoder });
}
