/** Sana as a model family. */
import * as z from "zod";
import { UsageError } from "../../engine/errors.ts";
import { sameKeys } from "../../weights/check-keys.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import { isSana, sanaCheckpointConfig, sanaConfig } from "./checkpoint.ts";
import { checkSana, type SanaConfig, sanaPresets, sanaSchema } from "./config.ts";
import { sana } from "./sana.ts";

export const sanaFamily: NetworkFamily<SanaConfig> = {
  kind: "sana",
  title: "Sana",
  schema: sanaSchema,
  check: checkSana,
  presets: sanaPresets,
  trace: sana,
  sizes: ({ patch }) => ({ unit: patch, fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    fields: { condition: z.literal("text").optional() },
    defaults(picture, given) {
      const { patch, hidden } = transformerSizes(picture, given);
      const heads = headsOf(hidden, 4);
      const text = { textHeads: heads, textHeadSize: hidden / heads };
      return { ...sanaPresets["Sana-1.6B"], patch, hidden, depth: 6, heads, ...text };
    },
    adapt(architecture, { condition, data }) {
      if (condition === "text") return architecture;
      throw new UsageError(
        `A Sana draws from texts, but ${condition === "none" ? `${data} has no captions` : "the condition is class"}; set model.condition to text, or model.kind to dit.`,
      );
    },
    textWidth: ({ hidden }) => hidden,
    loraTargets: ["transformer_blocks.*.attn*.to_*", "transformer_blocks.*.attn*.to_out.0"],
  },
  original: {
    recognises: isSana,
    headsUnshown: true,
    open: (weights, _, heads) => ({
      config: sanaCheckpointConfig(weights, heads),
      recipe: {
        process: "flow",
        predicts: "flow",
        weighting: { kind: "space", space: "flow" },
        times: { kind: "logit-normal", mean: 0, std: 1 },
        shift: 3,
      },
      sampling: { sampler: "euler", steps: 20, guidance: 4.5 },
      missing: `${weights.name} takes texts as hidden states of Gemma 2 and draws latents of DC-AE, but contains neither the encoder nor the autoencoder.`,
    }),
  },
  diffusers: {
    className: "SanaTransformer2DModel",
    config: sanaConfig,
    keys: sameKeys,
    weights: (weights) => weights,
    namesLora: true,
  },
  recorded: {
    name: "sana",
    // The first version of diffusers' code added positions, as PixArt's does.
    config: (args) => sanaConfig(args, (size) => Math.max(1, Math.floor(size / 64))),
    inputs: () => ({
      x: "hidden_states",
      t: "timestep",
      y: "encoder_hidden_states",
      mask: "encoder_attention_mask",
    }),
    output: "y",
  },
};
