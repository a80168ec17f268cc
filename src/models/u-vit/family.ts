/** U-ViT as a model family. */
import { ddpmRecipe } from "../../diffusion/recipe.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import { uViTConfig } from "./checkpoint.ts";
import { checkUViT, type UViTConfig, uViTPresets, uViTSchema } from "./config.ts";
import { uViT } from "./u-vit.ts";

export const uViTFamily: NetworkFamily<UViTConfig> = {
  kind: "u-vit",
  title: "U-ViT",
  schema: uViTSchema,
  check: checkUViT,
  presets: uViTPresets,
  trace: uViT,
  sizes: ({ patch }) => ({ unit: patch, fixed: true }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    // The paper's with fewer channels.
    defaults: (picture, given) => {
      const { patch, hidden } = transformerSizes(picture, given);
      return {
        patch,
        hidden,
        depth: 6,
        heads: headsOf(hidden, 1),
        mlpRatio: 4,
        qkvBias: false,
        timeMlp: false,
        longSkips: true,
        finalConv: true,
        learnedVariance: false,
      };
    },
    textWidth: ({ hidden }) => hidden,
  },
  original: {
    recognises: ({ entries }) => entries.has("mid_block.attn.qkv.weight"),
    open: ({ name }, fittingPreset) => {
      const config = fittingPreset();
      return {
        config,
        // Latents have the noise of Stable Diffusion, pixels that of Song et al.'s VP-SDE, which is DDPM's.
        recipe: ddpmRecipe(config.channels === 4 ? "scaled-linear" : "linear"),
        sampling: { sampler: "dpmpp-2m", steps: 50, guidance: 1.4 },
        ...(config.condition.kind === "text" && {
          missing: `${name} takes captions as CLIP's embeddings, but does not contain CLIP; the model can be counted, but not drawn with.`,
        }),
      };
    },
  },
  recorded: {
    name: "u_vit",
    config: uViTConfig,
    inputs: ({ condition }) => ({
      x: "x",
      t: "timesteps",
      ...(condition.kind !== "none" && { y: condition.kind === "class" ? "y" : "context" }),
    }),
    output: "y",
  },
};
