/** Reads the config of FLUX.1 from the arguments of the original code, the shapes of a checkpoint, or diffusers' config. */
import { FormatError } from "../../engine/errors.ts";
import { type KeyMap, renamedKeys, type Renaming } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { joinQkv, joinRows, swapHalves } from "../../weights/views.ts";
import type { LayerPart } from "../family.ts";
import { rotaryAxes } from "../rotary-axes.ts";
import { isLastModulation, streamNames, streamSizes } from "../stream-checkpoints.ts";
import { type FluxConfig, fluxPresets } from "./config.ts";

const published: FluxConfig = fluxPresets["FLUX.1-dev"];

/** Pixels of a patch of latents, which are the fastest channels of a token. */
const patchArea = published.patch ** 2;

/**
 * The arguments of FluxParams in the original code.
 *
 * @throws FormatError that names the field at fault
 */
export function fluxConfig(read: FieldReader): FluxConfig {
  const inputs = read.count("in_channels");
  checkOutputs(read, "out_channels", inputs);
  const [hidden, heads] = [read.count("hidden_size"), read.count("num_heads")];
  const config: FluxConfig = {
    ...published,
    channels: latentChannels(read, inputs),
    hidden,
    depth: read.count("depth"),
    singleDepth: read.count("depth_single_blocks"),
    heads,
    mlpRatio: read.number("mlp_ratio"),
    condition: {
      ...published.condition,
      width: read.count("context_in_dim"),
      pooled: read.count("vec_in_dim"),
    },
    axes: rotaryAxes(read, "axes_dim", { hidden, heads }, published.axes),
    theta: read.number("theta"),
    qkvBias: read.flag("qkv_bias"),
    guidance: read.flag("guidance_embed"),
  };
  read.finish("Flux");
  return config;
}

/**
 * The config.json of diffusers' FluxTransformer2DModel; what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersFluxConfig(read: FieldReader): FluxConfig {
  const inputs = read.count("in_channels", 64);
  checkOutputs(read, "out_channels", inputs);
  // Patches are cut before the network, which has one token for each.
  read.only("patch_size", 1);
  const heads = read.count("num_attention_heads", 24);
  const hidden = heads * read.count("attention_head_dim", 128);
  const guidance = read.flag("guidance_embeds", false);
  const { condition } = fluxPresets[guidance ? "FLUX.1-dev" : "FLUX.1-schnell"];
  const config: FluxConfig = {
    ...published,
    channels: latentChannels(read, inputs),
    hidden,
    depth: read.count("num_layers", 19),
    singleDepth: read.count("num_single_layers", 38),
    heads,
    condition: {
      ...condition,
      width: read.count("joint_attention_dim", 4096),
      pooled: read.count("pooled_projection_dim", 768),
    },
    axes: rotaryAxes(read, "axes_dims_rope", { hidden, heads }, published.axes),
    guidance,
  };
  read.finish("FluxTransformer2DModel");
  return config;
}

function latentChannels(read: FieldReader, inputs: number): number {
  if (inputs % patchArea === 0) return inputs / patchArea;
  throw new FormatError(
    `${read.file} has "in_channels" = ${inputs}, but a token holds ${patchArea} latents of each channel; give a multiple of ${patchArea}.`,
  );
}

function checkOutputs(read: FieldReader, name: string, inputs: number): void {
  const outputs = read.optionalCount(name) ?? inputs;
  if (outputs === inputs) return;
  throw new FormatError(
    `${read.file} has "in_channels" = ${inputs} and "${name}" = ${outputs}: a FLUX.1 that reads more than the latents it draws, such as Fill, Canny and Depth, is not supported; give FLUX.1 schnell, dev or Kontext.`,
  );
}

/** Returns true if the keys are those of a FLUX.1, whose blocks have a modulation each. */
export function isFlux({ entries }: Pick<Weights, "entries">): boolean {
  return entries.has("double_blocks.0.img_mod.lin.weight");
}

/**
 * Infers the config of a checkpoint with the original names from keys and shapes, which are not checked completely.
 *
 * @throws FormatError if its heads are not as wide as those of the published models, so that no shape shows the rotary axes
 */
export function fluxCheckpointConfig(weights: Pick<Weights, "name" | "entries">): FluxConfig {
  const { sizeOf, ...sizes } = streamSizes(weights, "FLUX.1", published);
  const { hidden } = sizes;
  const guidance = weights.entries.has("guidance_in.in_layer.weight");
  const { condition } = fluxPresets[guidance ? "FLUX.1-dev" : "FLUX.1-schnell"];
  return {
    ...published,
    channels: sizeOf("img_in.weight", 1) / patchArea,
    ...sizes,
    mlpRatio: sizeOf("double_blocks.0.img_mlp.0.weight", 0) / hidden,
    condition: {
      ...condition,
      width: sizeOf("txt_in.weight", 1),
      pooled: sizeOf("vector_in.in_layer.weight", 1),
    },
    qkvBias: weights.entries.has("double_blocks.0.img_attn.qkv.bias"),
    guidance,
  };
}

/** Ours → diffusers', whose projections are joined as `diffusersFluxWeights` does. */
const diffusersNames: Renaming = [
  [/^time_in\./, "time_text_embed.timestep_embedder."],
  [/^guidance_in\./, "time_text_embed.guidance_embedder."],
  [/^vector_in\./, "time_text_embed.text_embedder."],
  [/\.img_mod\.lin\./, ".norm1.linear."],
  [/\.txt_mod\.lin\./, ".norm1_context.linear."],
  [/\.img_mlp\.0\./, ".ff.net.0.proj."],
  [/\.img_mlp\.2\./, ".ff.net.2."],
  [/\.txt_mlp\.0\./, ".ff_context.net.0.proj."],
  [/\.txt_mlp\.2\./, ".ff_context.net.2."],
  [/\.modulation\.lin\./, ".norm.linear."],
  [/\.linear2\./, ".proj_out."],
  ...streamNames,
];

/** The names of diffusers' `transformer/` folder, after `diffusersFluxWeights`. */
export const diffusersFluxKeys: KeyMap = renamedKeys(diffusersNames);

/** Queries, keys and values of a parallel block, after `joinQkv`. */
const parallel = /^(single_transformer_blocks\.\d+)\.attn\.to_qkv\.(weight|bias)$/;

/** What `diffusersFluxWeights` joins in a parallel block. */
export function parallelParts(
  layer: string,
  { hidden, mlpRatio }: FluxConfig,
): readonly LayerPart[] | undefined {
  const [, block] = /^(single_transformer_blocks\.\d+)\.linear1$/.exec(layer) ?? [];
  if (block === undefined) return undefined;
  const part = (name: string, from: number, count: number): LayerPart => ({
    name: `${block}.${name}`,
    rows: [from, from + count],
  });
  return [
    ...["q", "k", "v"].map((name, i) => part(`attn.to_${name}`, i * hidden, hidden)),
    part("proj_mlp", 3 * hidden, mlpRatio * hidden),
  ];
}

/**
 * Weights of diffusers' FluxTransformer2DModel in the original's layout, where they lie: queries, keys and values in one, in the
 * parallel blocks together with the feed-forward part, and the last norm's shift before its scale.
 */
export function diffusersFluxWeights(weights: Weights): Weights {
  const joined = joinRows(joinQkv(weights), (name) => {
    const [, block, kind] = parallel.exec(name) ?? [];
    if (block === undefined) return undefined;
    return { name: `${block}.linear1.${kind}`, rest: [`${block}.proj_mlp.${kind}`] };
  });
  return swapHalves(joined, isLastModulation);
}
