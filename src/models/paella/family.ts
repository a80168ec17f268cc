/** Paella as a model family. */
import { timeScale } from "../../diffusion/recipe.ts";
import { FormatError, UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { batch } from "../../engine/graph/shape.ts";
import { mapValues } from "../../engine/records.ts";
import { createParams } from "../../nn/params.ts";
import { halvings } from "../default-sizes.ts";
import type { CountedPreset, NetworkFamily } from "../family.ts";
import { paellaText } from "./condition.ts";
import { checkPaella, paellaSchema, type TrainedPaellaConfig } from "./config.ts";
import { paella, type PaellaConfig, paellaPresets } from "./paella.ts";
import { paellaV1, type PaellaV1Config, paellaV1Presets } from "./paella-v1.ts";

/** The number of codes along each side of a picture of 256×256, in version 1 and version 3. */
const [v1Side, v3Side] = [32, 64];
/** The assumed length of a text for ByT5, whose tokens are bytes. */
const textBytes = 128;

export const paellaFamily: NetworkFamily<TrainedPaellaConfig> = {
  kind: "paella",
  title: "Paella",
  schema: paellaSchema,
  check: checkPaella,
  presets: {},
  counted: { ...mapValues(paellaV1Presets, countedV1), ...mapValues(paellaPresets, countedV3) },
  trace: (p, { x, t, ...condition }, config) => {
    const text = paellaText(p.at("told"), { t, ...condition }, config);
    const { codebook } = config.tokens;
    const whole = { ...config, codebook, clipWidth: 0, clipTokens: 0 };
    return paella(p, { tokens: x, share: t.div(timeScale), text }, whole);
  },
  embedsCodes: true,
  sizes: ({ patch, levels }) => ({ unit: patch * 2 ** (levels.length - 1), fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    // As version 3, with fewer channels and levels, down to about 8×8 pixels.
    defaults: (picture) => ({
      patch: 1,
      shareWidth: 64,
      conditionWidth: 192,
      textWidth: 192,
      levels: [
        ...halvings(picture, [2, 4]).map(() => ({ width: 96, heads: 1, blocks: 2, parts: "CT" })),
        { width: 192, heads: 3, blocks: 3, parts: "CTA" },
      ],
      kernel: 3,
      selfAttention: true,
      learnedVariance: false,
      tokens: { codebook: picture.codebook ?? 0 },
    }),
    adapt: (architecture, { picture, data }) => {
      if (picture.codebook !== undefined) return architecture;
      throw new UsageError(
        `Paella needs codes, but ${data} has continuous values; set latents.autoencoder to a VQGAN that patchwise train wrote, and diffusion.process to tokens.`,
      );
    },
    textWidth: ({ textWidth }) => textWidth,
  },
  original: {
    recognises: ({ entries }) =>
      entries.has("out_mapper.1.weight") || entries.has("down_blocks.0.0.cond_mapper.weight"),
    open: ({ name }) => {
      throw new FormatError(
        `${name} is a Paella, which takes embeddings of ByT5 or CLIP and draws codes of a VQGAN, neither of which is in the file; count it as Paella-v1 or Paella-v3, run it with patchwise/models and patchwise/diffusion, or train your own (model.kind: paella).`,
      );
    },
  },
};

function countedV1(config: PaellaV1Config): CountedPreset {
  return {
    of: "image",
    tokens: v1Side ** 2,
    graph: () => {
      const inputs = {
        tokens: input("tokens", [batch, v1Side, v1Side], "int64"),
        share: input("share", [batch]),
        clip: input("clip", [batch, config.clipWidth]),
      };
      return graphOf({ logits: paellaV1(createParams(), inputs, config) });
    },
  };
}

function countedV3(config: PaellaConfig): CountedPreset {
  return {
    of: "image",
    tokens: v3Side ** 2,
    graph: () => {
      const inputs = {
        tokens: input("tokens", [batch, v3Side, v3Side], "int64"),
        share: input("share", [batch]),
        text: input("text", [batch, textBytes, config.textWidth]),
        clipText: input("clipText", [batch, config.clipWidth]),
        clipImage: input("clipImage", [batch, config.clipWidth]),
      };
      return graphOf({ logits: paella(createParams(), inputs, config) });
    },
  };
}
