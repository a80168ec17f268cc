/** Reads the config of FLUX.2 from the arguments of the original code, the shapes of a checkpoint, or diffusers' config. */
import { type KeyMap, renamedKeys, type Renaming } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { joinQkv, swapHalves } from "../../weights/views.ts";
import { rotaryAxes } from "../rotary-axes.ts";
import { isLastModulation, streamNames, streamSizes } from "../stream-checkpoints.ts";
import { type Flux2Config, flux2Presets } from "./config.ts";

const published: Flux2Config = flux2Presets["FLUX.2-dev"];

/**
 * The arguments of Flux2Params in the original code, whose models without a guidance embedding say so.
 *
 * @throws FormatError that names the field at fault
 */
export function flux2Config(read: FieldReader): Flux2Config {
  const [hidden, heads] = [read.count("hidden_size"), read.count("num_heads")];
  const config: Flux2Config = {
    ...published,
    channels: read.count("in_channels"),
    hidden,
    depth: read.count("depth"),
    singleDepth: read.count("depth_single_blocks"),
    heads,
    mlpRatio: read.number("mlp_ratio"),
    condition: { ...published.condition, width: read.count("context_in_dim") },
    axes: rotaryAxes(read, "axes_dim", { hidden, heads }, published.axes),
    theta: read.number("theta"),
    guidance: read.flag("use_guidance_embed", true),
  };
  read.finish("Flux2");
  return config;
}

/**
 * The config.json of diffusers' Flux2Transformer2DModel; what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersFlux2Config(read: FieldReader): Flux2Config {
  const channels = read.count("in_channels", 128);
  read.only("out_channels", channels);
  read.only("patch_size", 1);
  read.only("timestep_guidance_channels", 256);
  read.only("eps", 1e-6);
  const heads = read.count("num_attention_heads", 48);
  const hidden = heads * read.count("attention_head_dim", 128);
  const config: Flux2Config = {
    ...published,
    channels,
    hidden,
    depth: read.count("num_layers", 8),
    singleDepth: read.count("num_single_layers", 48),
    heads,
    mlpRatio: read.number("mlp_ratio", 3),
    condition: { ...published.condition, width: read.count("joint_attention_dim", 15_360) },
    axes: rotaryAxes(read, "axes_dims_rope", { hidden, heads }, published.axes),
    theta: read.number("rope_theta", 2000),
    guidance: read.flag("guidance_embeds", true),
  };
  read.finish("Flux2Transformer2DModel");
  return config;
}

/** Returns true if the keys are those of a FLUX.2, all of whose blocks share a modulation. */
export function isFlux2({ entries }: Pick<Weights, "entries">): boolean {
  return entries.has("double_stream_modulation_img.lin.weight");
}

/**
 * Infers the config of a checkpoint with the original names from keys and shapes, which are not checked completely.
 *
 * @throws FormatError if its heads are not as wide as those of the published models, so that no shape shows the rotary axes
 */
export function flux2CheckpointConfig(weights: Pick<Weights, "name" | "entries">): Flux2Config {
  const { sizeOf, ...sizes } = streamSizes(weights, "FLUX.2", published);
  const { hidden } = sizes;
  return {
    ...published,
    channels: sizeOf("img_in.weight", 1),
    ...sizes,
    mlpRatio: sizeOf("double_blocks.0.img_mlp.0.weight", 0) / hidden / 2,
    condition: { ...published.condition, width: sizeOf("txt_in.weight", 1) },
    guidance: weights.entries.has("guidance_in.in_layer.weight"),
  };
}

/** Ours → diffusers', whose projections of an attention are read as one. */
const diffusersNames: Renaming = [
  [/^time_in\./, "time_guidance_embed.timestep_embedder."],
  [/^guidance_in\./, "time_guidance_embed.guidance_embedder."],
  [/_modulation(\w*)\.lin\./, "_modulation$1.linear."],
  [/\.img_mlp\.0\./, ".ff.linear_in."],
  [/\.img_mlp\.2\./, ".ff.linear_out."],
  [/\.txt_mlp\.0\./, ".ff_context.linear_in."],
  [/\.txt_mlp\.2\./, ".ff_context.linear_out."],
  [/\.linear1\./, ".attn.to_qkv_mlp_proj."],
  [/\.linear2\./, ".attn.to_out."],
  ...streamNames,
];

/** The names of diffusers' `transformer/` folder, after `diffusersFlux2Weights`. */
export const diffusersFlux2Keys: KeyMap = renamedKeys(diffusersNames);

/** Weights of diffusers' Flux2Transformer2DModel in the original's layout, where they lie. */
export function diffusersFlux2Weights(weights: Weights): Weights {
  return swapHalves(joinQkv(weights), isLastModulation);
}
