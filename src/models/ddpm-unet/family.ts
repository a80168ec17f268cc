/** The U-Net of denoising diffusion as a model family. */
import { ddpmRecipe } from "../../diffusion/recipe.ts";
import { halvings, headWidth } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import { ddpmUNetConfig } from "./checkpoint.ts";
import { checkDDPMUNet, type DDPMUNetConfig, ddpmUNetPresets, ddpmUNetSchema } from "./config.ts";
import { ddpmUNet } from "./ddpm-unet.ts";

export const ddpmUNetFamily: NetworkFamily<DDPMUNetConfig> = {
  kind: "ddpm-unet",
  title: "U-Net",
  schema: ddpmUNetSchema,
  check: checkDDPMUNet,
  presets: ddpmUNetPresets,
  trace: ddpmUNet,
  sizes: ({ multipliers }) => ({ unit: 2 ** (multipliers.length - 1), fixed: false }),
  patches: () => 0,
  training: {
    // ADM's with fewer channels: levels down to about 8×8, attention from 16×16 on.
    defaults: (picture) => {
      const levels = halvings(picture, [2, 4, 8, 16]);
      const shorter = Math.min(picture.height, picture.width);
      return {
        width: 64,
        multipliers: [1, ...levels.map(() => 2)],
        blocks: 2,
        attention: levels.filter((times) => shorter / times <= 16),
        heads: { channels: headWidth },
        headOrder: "new",
        scaleShift: true,
        residualResampling: true,
        learnedVariance: false,
      };
    },
    // The U-Net has no tokens of its own whose width the text could share.
    textWidth: () => 192,
  },
  original: {
    recognises: ({ entries }) => entries.has("middle_block.0.in_layers.2.weight"),
    open: (_, fittingPreset) => {
      const config = fittingPreset();
      // Of the published models only the smallest was trained on the cosine schedule.
      const cosine = config.learnedVariance && config.size[0] === 64;
      return {
        config,
        recipe: ddpmRecipe(cosine ? "cosine" : "linear"),
        sampling: { sampler: "ddpm", steps: 250, guidance: 1 },
      };
    },
  },
  recorded: {
    name: "ddpm_unet",
    config: ddpmUNetConfig,
    inputs: ({ condition }) => ({
      x: "x",
      t: "timesteps",
      ...(condition.kind === "class" && { y: "y" }),
    }),
    output: "y",
  },
};
