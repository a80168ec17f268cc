/** Wan as a model family. */
import { rectifiedFlow } from "../../diffusion/recipe.ts";
import type { NetworkFamily } from "../family.ts";
import {
  diffusersWanConfig,
  diffusersWanKeys,
  isWanCheckpoint,
  wanCheckpointConfig,
} from "./checkpoint.ts";
import { checkWan, mostPositions, type WanConfig, wanPresets, wanSchema } from "./config.ts";
import { wan } from "./wan.ts";

export const wanFamily: NetworkFamily<WanConfig> = {
  kind: "wan",
  title: "Wan",
  schema: wanSchema,
  check: checkWan,
  presets: wanPresets,
  trace: wan,
  sizes: ({ patch: [frames, rows, columns] }) => ({
    unit: leastCommonMultiple(rows, columns),
    most: mostPositions * Math.min(rows, columns),
    fixed: false,
    frames: { unit: frames, most: mostPositions * frames, fixed: false },
  }),
  patches: ({ patch, frames: own }, [height, width], frames = own) =>
    (frames / patch[0]) * (height / patch[1]) * (width / patch[2]),
  timePer: () => "token",
  original: {
    recognises: isWanCheckpoint,
    headsUnshown: true,
    open: (weights, _, heads) => ({
      config: wanCheckpointConfig(weights, heads),
      recipe: rectifiedFlow(5, { kind: "uniform" }),
      sampling: { sampler: "unipc", steps: 50, guidance: 5 },
      missing: `${weights.name} takes texts as embeddings of umT5 and draws latents, but contains neither this encoder nor the autoencoder.`,
    }),
  },
  diffusers: {
    className: "WanTransformer3DModel",
    config: diffusersWanConfig,
    keys: diffusersWanKeys,
    weights: (weights) => weights,
    namesLora: true,
  },
};

function leastCommonMultiple(a: number, b: number): number {
  const divisor = (x: number, y: number): number => (y === 0 ? x : divisor(y, x % y));
  return (a * b) / divisor(a, b);
}
