/** MMDiT as a model family. */
import { rectifiedFlow } from "../../diffusion/recipe.ts";
import * as z from "zod";
import { UsageError } from "../../engine/errors.ts";
import { count } from "../../nn/transformer-schema.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import {
  diffusersMMDiTConfig,
  diffusersMMDiTKeys,
  diffusersMMDiTWeights,
  hasSwappedHalves,
  mmditCheckpointConfig,
  mmditConfig,
} from "./checkpoint.ts";
import { checkMMDiT, type MMDiTConfig, mmditPresets, mmditSchema } from "./config.ts";
import { embedCondition, mmdit } from "./mmdit.ts";

export const mmditFamily: NetworkFamily<MMDiTConfig> = {
  kind: "mmdit",
  title: "MMDiT",
  schema: mmditSchema,
  check: checkMMDiT,
  presets: mmditPresets,
  trace: (p, { x, t, skip, ...condition }, config, options) =>
    mmdit(p, { x, t, ...embedCondition(p, condition, config), skip }, config, options),
  sizes: ({ patch, positions }) => ({ unit: patch, most: positions.max * patch, fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  skippable: ({ depth }) => depth,
  training: {
    fields: {
      condition: z.enum(["class", "text"]).optional(),
      // Only checkpoints hold a table of the other kind.
      positions: z.strictObject({ kind: z.literal("sin-cos"), max: count }).optional(),
    },
    // Stable Diffusion 3.5's at another size, with positions for pictures twice as large.
    defaults: (picture, given) => {
      const { patch, hidden, patches } = transformerSizes(picture, given);
      const max = 2 * Math.ceil(Math.max(picture.height, picture.width) / patch);
      return {
        ...mmditPresets["SD3-medium"],
        patch,
        hidden,
        depth: 6,
        heads: headsOf(hidden, 1),
        patches,
        positions: { kind: "sin-cos", max },
        qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
      };
    },
    adapt: (architecture, { condition, data }) => {
      if (condition === "none") {
        throw new UsageError(
          `An MMDiT needs a text or a class as its condition, but ${data} has neither captions nor classes; set model.kind to dit, or add captions in metadata.jsonl.`,
        );
      }
      return { ...architecture, positions: { ...architecture.positions, kind: "sin-cos" } };
    },
    textWidth: ({ hidden }) => hidden,
  },
  original: {
    architecture: "sd3",
    recognises: ({ entries }) => entries.has("joint_blocks.0.x_block.attn.qkv.weight"),
    open: (weights) => ({
      config: mmditCheckpointConfig(weights),
      recipe: rectifiedFlow(3),
      // As Stability's own code draws (sd3_infer.py).
      sampling: { sampler: "dpmpp-2m-sigma", steps: 40, guidance: 4.5 },
    }),
  },
  diffusers: {
    className: "SD3Transformer2DModel",
    config: diffusersMMDiTConfig,
    keys: diffusersMMDiTKeys,
    weights: diffusersMMDiTWeights,
    swapsHalves: hasSwappedHalves,
    namesLora: true,
  },
  recorded: {
    name: "sd3_mmdit",
    // The recorded heads need not be as wide as the original's.
    config: (args, recording) =>
      mmditConfig(args, {
        hidden: recording.optionalCount("hidden_size"),
        heads: recording.optionalCount("num_heads"),
      }),
    inputs: () => ({ x: "x", t: "t", pooled: "y", context: "context" }),
    output: "y",
  },
};
