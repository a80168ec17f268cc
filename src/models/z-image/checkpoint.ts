/** Reads the config of a Z-Image from the arguments of its constructor, or from the shapes of a checkpoint. */
import { renamed, type Renaming } from "../../weights/check-keys.ts";
import { FormatError } from "../../engine/errors.ts";
import { blocksUnder, requiredShapes } from "../../weights/checkpoint-shapes.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { type Weights, weightsOf } from "../../weights/safetensors/safetensors.ts";
import { splitRows } from "../../weights/views.ts";
import { rotaryAxes } from "../rotary-axes.ts";
import { type ZImageConfig, zImagePresets } from "./config.ts";

const published: ZImageConfig = zImagePresets["Z-Image-Turbo"];

/**
 * The arguments of ZImageTransformer2DModel, in the original code and in diffusers; what they leave out has the defaults.
 *
 * @param timeWidth channels inside the embedding of the time, which no argument says
 * @throws FormatError that names the field at fault
 */
export function zImageConfig(read: FieldReader, timeWidth = published.timeWidth): ZImageConfig {
  const [hidden, heads] = [read.count("dim", 3840), read.count("n_heads", 30)];
  read.only("n_kv_heads", heads);
  // What Z-Image-Omni has beside the text is not supported.
  read.only("siglip_feat_dim");
  const config: ZImageConfig = {
    ...published,
    channels: read.count("in_channels", 16),
    patch: single(read, "all_patch_size", 2),
    hidden,
    depth: read.count("n_layers", 30),
    refiners: read.countOrZero("n_refiner_layers", 2),
    heads,
    condition: { ...published.condition, width: read.count("cap_feat_dim", 2560) },
    timeWidth,
    timeScale: read.number("t_scale", 1000),
    qkNorm: read.flag("qk_norm", true),
    epsilon: read.number("norm_eps", 1e-5),
    axes: rotaryAxes(read, "axes_dims", { hidden, heads }, published.axes),
    places: places(read),
    theta: read.number("rope_theta", 256),
  };
  if (single(read, "all_f_patch_size", 1) !== 1) {
    throw new FormatError(
      `${read.file} has "all_f_patch_size" = ${read.counts("all_f_patch_size").join(", ")}, but a picture is one frame; only [1] is supported.`,
    );
  }
  read.finish("ZImageTransformer2DModel");
  return config;
}

/** A list of patch sizes, of which a picture has one. */
function single(read: FieldReader, name: string, otherwise: number): number {
  const sizes = read.counts(name, [otherwise]);
  if (sizes.length === 1) return sizes[0]!;
  throw new FormatError(
    `${read.file} has "${name}" = ${sizes.join(", ")}, but only networks of a single patch size are supported; give one number.`,
  );
}

function places(read: FieldReader): ZImageConfig["places"] {
  const lengths = read.counts("axes_lens", [1024, 512, 512]);
  if (lengths.length === 3) return lengths as unknown as ZImageConfig["places"];
  throw new FormatError(
    `${read.file} has ${lengths.length} numbers in "axes_lens", but the places of a Z-Image have 3 axes; give one number for each.`,
  );
}

/** Returns true if the keys are those of a Z-Image, under its own names or those of single files. */
export function isZImage({ entries }: Pick<Weights, "entries">): boolean {
  return entries.has("cap_pad_token") && entries.has("noise_refiner.0.adaLN_modulation.0.weight");
}

/** Projections of an attention that single files join. */
const fused = /^(.*\.attention)\.qkv\.weight$/;

/** Names of single files → the original's. */
const singleFileNames: Renaming = [
  [/^x_embedder\./, `all_x_embedder.${published.patch}-1.`],
  [/^final_layer\./, `all_final_layer.${published.patch}-1.`],
  [/\.attention\.out\./, ".attention.to_out.0."],
  [/\.attention\.q_norm\./, ".attention.norm_q."],
  [/\.attention\.k_norm\./, ".attention.norm_k."],
];

/** The name of a layer in single files, and which third of its rows are the layer's where they join its projections. */
export function singleFileLayer(layer: string): {
  readonly name: string;
  readonly part?: { readonly index: number; readonly of: number };
} {
  const [, path, projection] = /^(.*\.attention)\.to_([qkv])$/.exec(layer) ?? [];
  if (path !== undefined) {
    return { name: `${path}.qkv`, part: { index: "qkv".indexOf(projection!), of: 3 } };
  }
  return {
    name: layer
      .replace(/^all_(x_embedder|final_layer)\.\d+-1(?=\.|$)/, "$1")
      .replace(/\.attention\.to_out\.0$/, ".attention.out"),
  };
}

/** The weights of a single file under the original's names, which those of ComfyUI and GGUF differ from. */
export function originalZImageWeights(weights: Weights): Weights {
  const split = splitRows(weights, (name) => {
    const [, path] = fused.exec(name) ?? [];
    return path === undefined
      ? undefined
      : ["q", "k", "v"].map((part) => `${path}.to_${part}.weight`);
  });
  const entries = [...split.entries]
    // A norm that the network does not have, which some files contain.
    .filter(([name]) => name !== "norm_final.weight")
    .map(([name, entry]) => {
      const own = renamed(name, singleFileNames);
      // GGUF files have the padding without the axis of length 1.
      const pad = own.endsWith("_pad_token") && entry.shape.length === 1;
      return [own, pad ? { ...entry, shape: [1, ...entry.shape] } : entry] as const;
    });
  return weightsOf(split.name, split.metadata, new Map(entries), () => split.close());
}

/**
 * Infers the config of a checkpoint from keys and shapes, which are not checked completely.
 *
 * @param weights under the original's names
 * @throws FormatError if its heads are not as wide as those of the published models, so that no shape shows the rotary axes
 */
export function zImageCheckpointConfig(weights: Pick<Weights, "name" | "entries">): ZImageConfig {
  const { sizeOf } = requiredShapes(weights, "Z-Image");
  const { patch } = published;
  const [hidden, inputs] = [0, 1].map((axis) => sizeOf(`all_x_embedder.${patch}-1.weight`, axis));
  const norms = "layers.0.attention.norm_q.weight";
  const ownHead = published.hidden / published.heads;
  const qkNorm = weights.entries.has(norms);
  const head = qkNorm ? sizeOf(norms, 0) : ownHead;
  if (head !== ownHead) {
    throw new FormatError(
      `${weights.name} is a Z-Image with heads of ${head} channels, from which its rotary axes cannot be inferred; give a folder in diffusers' layout, whose config has them.`,
    );
  }
  return {
    ...published,
    channels: inputs! / patch ** 2,
    hidden: hidden!,
    depth: blocksUnder(weights, "layers"),
    refiners: blocksUnder(weights, "noise_refiner"),
    heads: hidden! / head,
    condition: { ...published.condition, width: sizeOf("cap_embedder.0.weight", 0) },
    timeWidth: sizeOf("t_embedder.mlp.0.weight", 0),
    qkNorm,
  };
}
