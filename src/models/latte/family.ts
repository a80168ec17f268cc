/** Latte as a model family. */
import { ddpmRecipe } from "../../diffusion/recipe.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { NetworkFamily } from "../family.ts";
import { isLatteCheckpoint, latteCheckpointConfig, latteConfig } from "./checkpoint.ts";
import { checkLatte, type LatteConfig, lattePresets, latteSchema } from "./config.ts";
import { latte, latteWithGuidance } from "./latte.ts";

export const latteFamily: NetworkFamily<LatteConfig> = {
  kind: "latte",
  title: "Latte",
  schema: latteSchema,
  check: checkLatte,
  presets: lattePresets,
  trace: latte,
  sizes: ({ patch }) => ({ unit: patch, fixed: true, frames: { unit: 1, fixed: true } }),
  patches: ({ patch, frames: own }, [height, width], frames = own) =>
    frames * (height / patch) * (width / patch),
  original: {
    recognises: isLatteCheckpoint,
    open: (weights, _, heads) => ({
      config: latteCheckpointConfig(weights, heads),
      recipe: ddpmRecipe("linear"),
      // As the original `sample.py` draws.
      sampling: { sampler: "ddpm", steps: 250, guidance: 7, guidedChannels: 4 },
    }),
  },
  recorded: {
    name: "latte",
    config: latteConfig,
    inputs: ({ condition }) => ({
      x: "x",
      t: "t",
      ...(condition.kind === "class" && { y: "y" }),
      ...(condition.kind === "text" && { y: "text_embedding" }),
    }),
    output: "y",
    // The original has the frames in front of the channels.
    trace: (p, inputs, config) =>
      framesFirst(latte(p, { ...inputs, x: framesFirst(inputs.x) }, config)),
    guided: (p, inputs, config, scale) =>
      framesFirst(latteWithGuidance(p, { ...inputs, x: framesFirst(inputs.x) }, config, scale)),
    guidedOutput: "forward_with_cfg",
  },
};

/** Swaps frames and channels: [B, C, F, H, W] ↔ [B, F, C, H, W]. */
function framesFirst(clip: Tensor) {
  return clip.transpose([0, 2, 1, 3, 4]);
}
