/** A Wan2.1 of reduced width with random weights, as diffusers saves it: umT5, transformer, scheduler and causal autoencoder. */
import path from "node:path";
import { videoAutoencoderKeys } from "../../src/models/coders/video-autoencoder-checkpoint.ts";
import { diffusersVideoAutoencoderConfig } from "../../src/models/coders/video-autoencoder-config.ts";
import { videoAutoencoderParams } from "../../src/models/coders/video-autoencoder.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { diffusersWanConfig, diffusersWanKeys } from "../../src/models/wan/checkpoint.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { filesIn, randomWeights, writeT5Folders } from "./minit2i.ts";

/** The arguments that differ from the published ones. */
const transformer = {
  num_attention_heads: 2,
  attention_head_dim: 12,
  in_channels: 4,
  out_channels: 4,
  text_dim: 32,
  freq_dim: 16,
  ffn_dim: 40,
  num_layers: 2,
};
const vae = {
  base_dim: 4,
  z_dim: 4,
  num_res_blocks: 1,
  latents_mean: [0.1, -0.2, 0.3, 0],
  latents_std: [1, 1.5, 0.5, 2],
};
const encoder = {
  model_type: "umt5",
  feed_forward_proj: "gated-gelu",
  vocab_size: 100,
  d_model: 32,
  d_kv: 8,
  d_ff: 48,
  num_layers: 2,
  num_heads: 4,
};

/** Writes the folder. */
export async function writeWanFolder(folder: string): Promise<void> {
  const { json } = filesIn(folder);
  await json("model_index.json", {
    _class_name: "WanPipeline",
    scheduler: ["diffusers", "UniPCMultistepScheduler"],
    text_encoder: ["transformers", "UMT5EncoderModel"],
    tokenizer: ["transformers", "T5TokenizerFast"],
    transformer: ["diffusers", "WanTransformer3DModel"],
    vae: ["diffusers", "AutoencoderKLWan"],
  });
  await json("scheduler/scheduler_config.json", {
    _class_name: "UniPCMultistepScheduler",
    prediction_type: "flow_prediction",
    use_flow_sigmas: true,
    flow_shift: 3,
  });
  await json("transformer/config.json", { _class_name: "WanTransformer3DModel", ...transformer });
  const network = diffusersWanConfig(fieldReader("transformer", transformer));
  const traced = traceNetwork({ kind: "wan", ...network, size: [2, 2], frames: 1 });
  const weights = Object.entries(randomWeights(traced.params, 1));
  await writeSafetensors(
    path.join(folder, "transformer/diffusion_pytorch_model.safetensors"),
    weights.map(([name, array]) => [diffusersWanKeys.keyOf(name), array] as const),
  );
  await json("vae/config.json", { _class_name: "AutoencoderKLWan", ...vae });
  const config = diffusersVideoAutoencoderConfig(fieldReader("vae", vae));
  const { keyOf } = videoAutoencoderKeys(["encoder.conv_in.weight"], config);
  await writeSafetensors(
    path.join(folder, "vae/diffusion_pytorch_model.safetensors"),
    Object.entries(randomWeights(videoAutoencoderParams(config), 3)).map(
      ([name, array]) => [keyOf(name), array] as const,
    ),
  );
  await writeT5Folders(folder, encoder);
}
