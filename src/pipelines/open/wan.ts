/** Wan as a model of its parts: umT5 reads a prompt with its padding masked, and a causal autoencoder decodes the clip. */
import { rowsOf } from "../../diffusion/arrays.ts";
import type { Conditions } from "../../diffusion/denoiser.ts";
import { FormatError } from "../../engine/errors.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { ImageModel } from "../image-model.ts";
import { type OpenTextEncoders, type TextEncoderTable, textEncoding } from "./text-encoders.ts";

export const wanTextEncoders = {
  umt5: {
    title: "umT5",
    kind: "umt5",
    reader: "umT5",
    folder: "text_encoder",
    tokenizer: "tokenizer",
    prefix: "text_encoders.umt5xxl.transformer.",
    isAlone: ({ entries }: Weights) =>
      entries.has("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"),
    masked: true,
  },
} satisfies TextEncoderTable;

/** Wan2.2-TI2V is the model with latents of so many channels, and draws more frames a second than the others. */
const [FAST_CHANNELS, FAST, USUAL] = [48, 24, 16];

/**
 * Adds the text encoder to the other parts.
 *
 * @throws FormatError if the folder lacks it, or it does not fit the network
 */
export function wanModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
): ImageModel {
  const { name, network } = parts;
  const { condition, channels } = network;
  const { umt5: encoder } = encoders;
  if (condition.kind !== "text" || !encoder) {
    throw new FormatError(
      `${name} lacks its text encoder; put that of Wan, umT5, into its folders text_encoder and tokenizer.`,
    );
  }
  if (encoder.width !== condition.width) {
    throw new FormatError(
      `The network takes tokens of width ${condition.width}, but the text encoder gives ${encoder.width}; give the one that belongs to it.`,
    );
  }
  const reading = textEncoding(
    {
      umt5: {
        row: wanTextEncoders.umt5,
        encoder,
        tokenizer: tokenizers["umt5"]!,
        tokens: condition.length,
        outputs: { hidden: "hidden" },
      },
    },
    ({ umt5 }, texts) =>
      Array.from({ length: texts }, (_, row): Conditions => ({
        y: rowsOf(umt5!["hidden"]!, row, 1),
        mask: rowsOf(umt5!["mask"]!, row, 1),
      })),
  );
  return {
    ...parts,
    encoder: reading,
    defaults: { ...parts.defaults, fps: channels === FAST_CHANNELS ? FAST : USUAL },
  };
}
