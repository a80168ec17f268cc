/** The config of a video DiT. */
import * as z from "zod";
import {
  checkSizes,
  count,
  patchTransformerFields,
  type Refuse,
} from "../../nn/transformer-schema.ts";

const {
  canvas: _canvas,
  embeddings: _embeddings,
  block: _block,
  ...shared
} = patchTransformerFields;

/** Fixed and rotary positions let it draw other sizes and lengths than those it was trained for. */
export const videoDiTSchema = z.strictObject({
  ...shared,
  /** Frames of a clip; the data decides. */
  frames: count,
  /** Frames of a patch, whose rows and columns are `patch`. */
  framePatch: count,
  learnedVariance: z.literal(false),
});

export type VideoDiTConfig = z.output<typeof videoDiTSchema>;

/** Reports fields that do not fit each other. */
export function checkVideoDiT(config: VideoDiTConfig, refuse: Refuse): void {
  const { frames, framePatch, hidden, heads, positions, rotary } = config;
  checkSizes({ ...config, positions: undefined }, refuse);
  if (frames % framePatch !== 0) {
    refuse(
      "framePatch",
      `a clip of ${frames} frames cannot be cut into patches of ${framePatch}; choose a divisor, or other frames`,
    );
  }
  if (positions.kind === "sin-cos" && hidden % 6 !== 0) {
    refuse(
      "hidden",
      `sin-cos positions over time, rows and columns need a width that is a multiple of 6, but it is ${hidden}`,
    );
  }
  if (rotary && ((hidden / heads) % 2 !== 0 || hidden / heads < 6)) {
    refuse(
      "heads",
      `rotary positions turn pairs of channels, one or more an axis, so a head needs an even width of at least 6, but it has ${hidden / heads}`,
    );
  }
}
