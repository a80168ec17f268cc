/** The video DiT as a model family, to be trained from scratch. */
import { UsageError } from "../../engine/errors.ts";
import { headsOf, transformerSizes } from "../default-sizes.ts";
import type { NetworkFamily } from "../family.ts";
import { checkVideoDiT, type VideoDiTConfig, videoDiTSchema } from "./config.ts";
import { videoDiT } from "./video-dit.ts";

/** Patches of a frame that a small model can afford on a CPU, beside those of other frames. */
const patchesOfFrame = 16;

export const videoDiTFamily: NetworkFamily<VideoDiTConfig> = {
  kind: "video-dit",
  title: "video DiT",
  schema: videoDiTSchema,
  check: checkVideoDiT,
  presets: {},
  trace: videoDiT,
  sizes: ({ patch, framePatch, positions }) => {
    const fixed = positions.kind === "learned";
    return { unit: patch, fixed, frames: { unit: framePatch, fixed } };
  },
  patches: ({ patch, framePatch, frames: own }, [height, width], frames = own) =>
    (frames / framePatch) * (height / patch) * (width / patch),
  timePer: () => "frame",
  takesStart: ({ canvas }) => canvas !== undefined,
  training: {
    defaults: (picture, given) => {
      const { frames } = picture;
      if (frames === undefined) {
        throw new UsageError(
          "A video DiT draws clips, but the config says nothing of frames; set picture.frames, or model.kind to dit.",
        );
      }
      const { patch, hidden, patches } = transformerSizes(picture, given, patchesOfFrame);
      return {
        patch,
        hidden,
        frames,
        framePatch: 1,
        depth: 6,
        heads: headsOf(hidden, 2),
        mlpRatio: 4,
        learnedVariance: false,
        patches,
        positions: { kind: "sin-cos" },
        rotary: { theta: 100 },
        norm: { kind: "rms", affine: false, epsilon: 1e-6 },
        feedForward: { kind: "swiglu" },
        qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
      };
    },
    textWidth: ({ hidden }) => hidden,
  },
};
