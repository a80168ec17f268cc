/** Folders and files of models as others publish them, at a small width and with random weights. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { castArray, ndarray, sizeOf } from "../../src/engine/arrays/ndarray.ts";
import { autoencoderKLConfig } from "../../src/models/coders/autoencoder-kl-config.ts";
import { autoencoderKLParams } from "../../src/models/coders/autoencoder-kl.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { diffusersDiTKeys } from "../../src/models/dit/checkpoint.ts";
import { type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";
import { randomArray } from "./arrays.ts";
import { randomWeights } from "./tiny-model.ts";

/** Of 64 channels a head, which is how a single file is read. */
const narrowDiT = {
  ...ditPresets["DiT-S/2"],
  kind: "dit",
  size: [4, 4],
  hidden: 128,
  depth: 2,
  heads: 2,
  condition: { kind: "class", classes: 3, nullClass: true },
} as const satisfies NetworkConfig;

const narrowWeights = randomWeights(narrowDiT, 5);

/** A file of facebookresearch/DiT: its own names, with the table of positions. */
export async function writeOriginalDiT(file: string): Promise<void> {
  const { buffers } = traceNetwork(narrowDiT).params;
  const tables = [...buffers].map(([name, { value }]) => [name, value] as const);
  await writeSafetensors(file, [...Object.entries(narrowWeights), ...tables]);
}

export const narrowVAE = {
  _class_name: "AutoencoderKL",
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  block_out_channels: [8, 16],
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
  layers_per_block: 1,
  norm_num_groups: 4,
  scaling_factor: 0.2,
};

/** Diffusers' `vae/`. */
export async function writeVAE(folder: string): Promise<void> {
  const { declared } = autoencoderKLParams(autoencoderKLConfig(fieldReader("vae", narrowVAE)));
  const weights = [...declared].map(
    ([name, { tensor }], i) =>
      [name, randomArray(100 + i, "float32", tensor.shape as number[], -0.2, 0.2)] as const,
  );
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(narrowVAE));
  await writeSafetensors(path.join(folder, "diffusion_pytorch_model.safetensors"), weights);
}

export interface DiffusersOptions {
  readonly scheduler?: object;
  readonly half?: boolean;
}

/** A DiTPipeline as diffusers saves it. */
export async function writeDiffusersDiT(
  folder: string,
  { scheduler = {}, half = false }: DiffusersOptions = {},
): Promise<void> {
  for (const each of ["transformer", "scheduler"]) {
    mkdirSync(path.join(folder, each), { recursive: true });
  }
  const json = (file: string, content: object) =>
    writeFileSync(path.join(folder, file), JSON.stringify(content));
  json("model_index.json", {
    _class_name: "DiTPipeline",
    id2label: { 0: "tench, Tinca tinca", 1: "crane", 2: "crane" },
    scheduler: ["diffusers", "DDPMScheduler"],
    transformer: ["diffusers", "DiTTransformer2DModel"],
    vae: ["diffusers", "AutoencoderKL"],
  });
  json("transformer/config.json", {
    _class_name: "DiTTransformer2DModel",
    num_attention_heads: 2,
    attention_head_dim: 64,
    in_channels: 4,
    out_channels: 8,
    num_layers: 2,
    sample_size: 4,
    patch_size: 2,
    num_embeds_ada_norm: 3,
  });
  json("scheduler/scheduler_config.json", {
    _class_name: "DDPMScheduler",
    beta_schedule: "linear",
    clip_sample: false,
    timestep_spacing: "linspace",
    variance_type: "learned_range",
    ...scheduler,
  });
  await writeVAE(path.join(folder, "vae"));
  await writeSafetensors(
    path.join(folder, "transformer/diffusion_pytorch_model.safetensors"),
    Object.entries(narrowWeights)
      .flatMap(([name, array]) => diffusersNamed(diffusersDiTKeys.keyOf(name), array))
      .map(([name, array]) => [name, half ? castArray(array, "float16") : array] as const),
  );
}

/** Projections apart, and the embeddings in every block. */
function diffusersNamed(key: string, array: NdArray): (readonly [string, NdArray])[] {
  if (key.includes(".to_qkv.")) {
    const [rows = 0, ...rest] = array.shape;
    const size = sizeOf(rest) * (rows / 3);
    const data = array.data as Float32Array;
    return ["q", "k", "v"].map((part, i) => [
      key.replace("to_qkv", `to_${part}`),
      ndarray("float32", [rows / 3, ...rest], data.slice(i * size, (i + 1) * size)),
    ]);
  }
  const copies = key.startsWith("transformer_blocks.0.norm1.emb.")
    ? [[key.replace("blocks.0", "blocks.1"), array] as const]
    : [];
  return [[key, array], ...copies];
}
