/** The config of a video DiT. */
import * as z from "zod";
import {
  checkMixing,
  checkPairs,
  checkSizes,
  count,
  gridOf,
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
  /**
   * Adds to each patch's token what a coarse picture has at its place. The condition, a code and the shares of `motions`, draws the
   * picture and moves it, by a table of the poses of each motion in `period` frames, after which it repeats. `width` is that of a
   * patch: channels times the square of the pixels along a side.
   */
  canvas: z.strictObject({ width: count, motions: count, period: count }).optional(),
});

export type VideoDiTConfig = z.output<typeof videoDiTSchema>;

/** Reports fields that do not fit each other. */
export function checkVideoDiT(config: VideoDiTConfig, refuse: Refuse): void {
  const { frames, framePatch, hidden, heads, positions, rotary } = config;
  checkSizes({ ...config, positions: undefined }, refuse);
  checkMixing(config.attention, [frames / framePatch, ...gridOf(config)], refuse);
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
  checkCanvas(config, refuse);
  checkPairs(config, 3, refuse);
  if (rotary && !rotary.pairs && ((hidden / heads) % 2 !== 0 || hidden / heads < 6)) {
    refuse(
      "heads",
      `rotary positions turn pairs of channels, one or more an axis, so a head needs an even width of at least 6, but it has ${hidden / heads}`,
    );
  }
}

/** Reports a moving canvas that does not fit its network. */
function checkCanvas(
  { canvas, channels, patch, framePatch, condition }: VideoDiTConfig,
  refuse: Refuse,
): void {
  if (!canvas) return;
  const { width, motions } = canvas;
  const cell = Math.sqrt(width / channels);
  if (!Number.isInteger(cell) || patch % cell !== 0) {
    refuse(
      "canvas",
      `a width of ${width} is not that of a square of whole pixels in ${channels} channels whose side divides the patch of ${patch}; choose ${channels * (patch / 2) ** 2}`,
    );
  }
  if (framePatch !== 1) {
    refuse(
      "canvas",
      `a canvas moves in each frame, but patches have ${framePatch}; set framePatch to 1`,
    );
  }
  if (condition.kind !== "text" || condition.length !== 1 || condition.width <= motions) {
    refuse(
      "canvas",
      `a moving canvas needs a text condition of one token that is wider than its ${motions} motions; give one, or leave the canvas out`,
    );
  }
}
