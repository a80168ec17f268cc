/** DiT as a model family. */
import { ddpmRecipe } from "../../diffusion/recipe.ts";
import { joinQkv } from "../../weights/views.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import {
  configOfDiffusersWeights,
  diffusersDiTConfig,
  diffusersDiTKeys,
  ditCheckpointConfig,
  ditConfig,
  isDiTCheckpoint,
} from "./checkpoint.ts";
import { checkDiT, type DiTConfig, ditPresets, ditSchema } from "./config.ts";
import { dit, ditWithGuidance } from "./dit.ts";

export const ditFamily: NetworkFamily<DiTConfig> = {
  kind: "dit",
  title: "DiT",
  schema: ditSchema,
  check: checkDiT,
  presets: ditPresets,
  trace: dit,
  routesTokens: true,
  sizes: ({ patch, positions, canvas }) => ({
    unit: patch,
    fixed: positions.kind === "learned" || canvas !== undefined,
  }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    // As later recipes for pixels have it (JiT, Li & He, 2025).
    defaults: (picture, given) => {
      const { patch, hidden, patches } = transformerSizes(picture, given);
      return {
        patch,
        hidden,
        depth: 6,
        heads: headsOf(hidden, given.rotary === null ? 1 : 4),
        mlpRatio: 4,
        learnedVariance: false,
        block: { kind: "adaLN-zero" },
        patches,
        positions: { kind: "sin-cos" },
        rotary: { theta: 100 },
        norm: { kind: "rms", affine: false, epsilon: 1e-6 },
        feedForward: { kind: "swiglu" },
        qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
      };
    },
    // The tokens of a text join the patches unless the config says another way.
    adapt: (architecture, { given, condition }) => {
      const { block } = architecture;
      const modulated = block.kind === "adaLN" || block.kind === "adaLN-zero";
      if (given.block || condition !== "text" || !modulated) return architecture;
      return { ...architecture, block: { ...block, text: "in-context" } };
    },
    textWidth: ({ hidden }) => hidden,
  },
  original: {
    recognises: isDiTCheckpoint,
    headsUnshown: true,
    open: (weights, _, heads) => ({
      config: ditCheckpointConfig(weights, heads),
      recipe: ddpmRecipe("linear"),
      // As the original `sample.py` draws.
      sampling: { sampler: "ddpm", steps: 250, guidance: 4, guidedChannels: 3 },
    }),
  },
  diffusers: {
    className: "DiTTransformer2DModel",
    config: diffusersDiTConfig,
    keys: diffusersDiTKeys,
    weights: joinQkv,
    complete: configOfDiffusersWeights,
    // A DiT that was trained here has parts that diffusers' class does not know.
    namesLora: false,
  },
  recorded: {
    name: "dit",
    config: ditConfig,
    inputs: () => ({ x: "x", t: "t", y: "y" }),
    output: "forward",
    guided: ditWithGuidance,
  },
};
