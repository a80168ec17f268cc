/** MiniT2I as a model family. */
import * as z from "zod";
import { meanFlowDefaults } from "../../diffusion/mean-flow.ts";
import type { Recipe } from "../../diffusion/recipe.ts";
import { UsageError } from "../../engine/errors.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import {
  diffusersMiniT2IKeys,
  isMiniT2I,
  miniT2ICheckpointConfig,
  miniT2IConfig,
  originalMiniT2IWeights,
} from "./checkpoint.ts";
import { checkMiniT2I, type MiniT2IConfig, miniT2IPresets, miniT2ISchema } from "./config.ts";
import { miniT2I, miniT2IText } from "./minit2i.ts";

/** How MiniT2I was trained; its own times run the other way. */
export const miniT2IRecipe = {
  process: "flow",
  predicts: "x0",
  weighting: { kind: "space", space: "flow", lowestSigma: 0.05 },
  times: { kind: "logit-normal", mean: 0.8, std: 0.8 },
  noiseScale: 2,
  shift: 1,
} as const satisfies Recipe;

const { instantShare, mostGuidance } = meanFlowDefaults;
/** How its mean flow was trained. */
export const miniT2IMeanFlowRecipe = {
  ...miniT2IRecipe,
  meanFlow: { instantShare, mostGuidance },
} as const satisfies Recipe;
/** The steps and the guidance of the published mean flow. */
export const miniT2IMeanFlowDefaults = { steps: 4, guidance: 12 } as const;

export const miniT2IFamily: NetworkFamily<MiniT2IConfig> = {
  kind: "minit2i",
  title: "MiniT2I",
  schema: miniT2ISchema,
  check: checkMiniT2I,
  presets: miniT2IPresets,
  trace: miniT2I,
  isMeanFlow: ({ meanFlow }) => meanFlow !== undefined,
  text: {
    // The tokens of a mean flow tell it the step.
    shape: ({ meanFlow, condition, hidden }) => (meanFlow ? undefined : [condition.length, hidden]),
    trace: miniT2IText,
  },
  sizes: ({ patch }) => ({ unit: patch, fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    fields: { condition: z.literal("text").optional() },
    // The published ones at another size: two blocks of the text, and the others for both.
    defaults: (picture, given) => {
      const { patch, hidden, patches } = transformerSizes(picture, given);
      return {
        ...miniT2IPresets["MiniT2I-B/16"],
        patch,
        hidden,
        depth: 6,
        heads: headsOf(hidden, 4),
        bottleneck: patches.kind === "bottleneck" ? patches.width : patch ** 2 * picture.channels,
      };
    },
    adapt: (whole, { given, condition, data }) => {
      const { unreadWidth: _, ...architecture } = whole;
      if (given.unreadWidth !== undefined) {
        throw new UsageError(
          `model.unreadWidth is ${given.unreadWidth}, but only published files have weights that nothing reads; leave it out.`,
        );
      }
      if (condition === "text") return architecture;
      throw new UsageError(
        `A MiniT2I draws from texts, but ${condition === "none" ? `${data} has no captions` : "the condition is class"}; set model.condition to text, or model.kind to dit.`,
      );
    },
    textWidth: ({ hidden }) => hidden,
    loraTargets: ["*_blocks.**qkv", "*_blocks.**attn_proj", "*_blocks.**mlp.**"],
  },
  original: {
    recognises: isMiniT2I,
    weights: originalMiniT2IWeights,
    open: (weights) => {
      const config = miniT2ICheckpointConfig(weights);
      return config.meanFlow
        ? {
            config,
            recipe: miniT2IMeanFlowRecipe,
            sampling: { sampler: "euler", ...miniT2IMeanFlowDefaults },
          }
        : {
            config,
            recipe: miniT2IRecipe,
            sampling: { sampler: "euler", steps: 100, guidance: 6 },
          };
    },
  },
  diffusers: {
    className: "MiniT2IMMJiTModel",
    config: miniT2IConfig,
    keys: diffusersMiniT2IKeys,
    weights: (weights) => weights,
    namesLora: false,
  },
  recorded: {
    name: "minit2i",
    config: miniT2IConfig,
    inputs: () => ({ x: "img", t: "t", y: "context", mask: "mask" }),
    output: "x0",
    gradientsOf: "all cases",
  },
};
