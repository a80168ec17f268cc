/**
 * Models that are published in parts, as ComfyUI has them: a file each for the network, the text encoders and the autoencoder. One row
 * for each kind of network says which parts it needs, and gives what diffusers' folders say in their configs and these files do not.
 */
import { fieldReader } from "../../weights/config-fields.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { ImageModel } from "../image-model.ts";
import {
  fluxDrawing,
  fluxModel,
  fluxTextEncoders,
  kleinDrawing,
  kleinModel,
  kleinTextEncoders,
  zImageDrawing,
  zImageModel,
  zImageTextEncoders,
} from "./flux.ts";
import { miniT2IFileDrawing, miniT2IModel, miniT2ITextEncoders } from "./minit2i.ts";
import { sd3FileDrawing, sd3FileModel, sd3TextEncoders } from "./sd3.ts";
import type { OpenModelOptions } from "./options.ts";
import type { OpenTextEncoders, TextEncoderTable } from "./text-encoders.ts";

type Network = ImageModel["network"];

export interface SplitModel {
  /** The model's name, where its network's is another. */
  readonly title?: string;
  readonly encoders: TextEncoderTable;
  /** True if encoders can be left out (`without`), and give zeros then. */
  readonly optional?: boolean;
  /** Width of each encoder that fits the network, where it shows. */
  widths(network: Network): Readonly<Record<string, number | undefined>>;
  /** The files that people use, by the encoder's name, and `vae` where the network draws latents. */
  readonly files: Readonly<Record<string, string>>;
  /** A repository on the Hub that has the folders of the tokenizers. */
  readonly tokenizers: string;
  /** @param file name of the network's file, by which alone some published models differ */
  drawing(file: string, network: Network): Pick<ImageModel, "process" | "defaults">;
  withEncoders(
    parts: ImageModel,
    encoders: OpenTextEncoders,
    tokenizers: Readonly<Record<string, Tokenizer>>,
    options: OpenModelOptions,
  ): ImageModel;
}

/** The scheduler of FLUX and Z-Image, as their folders in diffusers' layout describe it. */
const flow = (file: string, fields: { shift: number; use_dynamic_shifting?: boolean }) =>
  fieldReader(file, { _class_name: "FlowMatchEulerDiscreteScheduler", ...fields });

/** Width of the tokens of a network's texts, and of the pooled text beside them. */
function textOf({ condition }: Network) {
  return condition.kind === "text"
    ? { width: condition.width, pooled: condition.pooled }
    : { width: undefined, pooled: undefined };
}

const qwen3File = "qwen_3_4b.safetensors";

/** By the kind of the network. */
export const splitModels: Readonly<Record<string, SplitModel>> = {
  flux: {
    encoders: fluxTextEncoders,
    widths(network) {
      const { width, pooled } = textOf(network);
      return { "clip-l": pooled, t5: width };
    },
    files: {
      "clip-l": "clip_l.safetensors",
      t5: "t5xxl_fp16.safetensors",
      vae: "ae.safetensors",
    },
    tokenizers: "black-forest-labs/FLUX.1-schnell",
    drawing(file, network) {
      const guidance = "guidance" in network && network.guidance === true;
      const fields = {
        index: fieldReader(file, {}),
        transformer: fieldReader(file, { guidance_embeds: guidance }),
        scheduler: flow(file, { shift: guidance ? 3 : 1, use_dynamic_shifting: guidance }),
      };
      return fluxDrawing(fields, network);
    },
    withEncoders: fluxModel,
  },
  flux2: {
    encoders: kleinTextEncoders,
    widths: (network) => ({ qwen3: (textOf(network).width ?? 0) / 3 }),
    files: { qwen3: qwen3File, vae: "flux2-vae.safetensors" },
    tokenizers: "black-forest-labs/FLUX.2-klein-4B",
    drawing(file, network) {
      const fields = {
        index: fieldReader(file, { is_distilled: !/base/i.test(file) }),
        transformer: fieldReader(file, {}),
        scheduler: flow(file, { shift: 3, use_dynamic_shifting: true }),
      };
      return kleinDrawing(fields, network);
    },
    withEncoders: kleinModel,
  },
  "z-image": {
    encoders: zImageTextEncoders,
    widths: (network) => ({ qwen3: textOf(network).width }),
    files: { qwen3: qwen3File, vae: "ae.safetensors" },
    tokenizers: "Tongyi-MAI/Z-Image-Turbo",
    drawing(file, network) {
      const isBase = /base|^z_image_(bf16|fp)/i.test(file);
      const fields = {
        index: fieldReader(file, {}),
        transformer: fieldReader(file, {}),
        scheduler: flow(file, { shift: isBase ? 6 : 3 }),
      };
      return zImageDrawing(fields, network);
    },
    withEncoders: zImageModel,
  },
  mmdit: {
    title: "Stable Diffusion 3",
    encoders: sd3TextEncoders,
    optional: true,
    widths: (network) => ({ t5: textOf(network).width }),
    files: {
      "clip-l": "clip_l.safetensors",
      "clip-g": "clip_g.safetensors",
      t5: "t5xxl_fp16.safetensors",
      vae: "diffusion_pytorch_model.safetensors of its folder vae",
    },
    tokenizers: "stabilityai/stable-diffusion-3-medium-diffusers",
    drawing: sd3FileDrawing,
    withEncoders: sd3FileModel,
  },
  minit2i: {
    encoders: miniT2ITextEncoders,
    widths: (network) => ({ t5: textOf(network).width }),
    files: { t5: "flan-t5-large.safetensors" },
    tokenizers: "MiniT2I/MiniT2I",
    drawing: miniT2IFileDrawing,
    withEncoders: miniT2IModel,
  },
};
