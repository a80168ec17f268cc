/** The config of a Wan transformer and the published sizes. */
import { z } from "zod";
import {
  count,
  tokenCount,
  tokenWidth,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

const { size, channels, hidden, depth, heads } = transformerFields;

/** Rotary positions fit clips of any size and length up to `mostPositions` patches along an axis. */
export const wanSchema = z.strictObject({
  size,
  /** Frames of a clip, in latents. */
  frames: count,
  channels,
  /** Channels of the output. */
  outputs: count,
  /** Frames, rows and columns of a patch. */
  patch: z.tuple([count, count, count]).readonly(),
  hidden,
  /** Width between the two layers of a feed-forward network. */
  inner: count,
  depth,
  heads,
  /** Sines and cosines of a time, an even number. */
  frequencies: count,
  /** A text of `length` tokens of `width` channels. */
  condition: z.strictObject({ kind: z.literal("text"), width: tokenWidth, length: tokenCount }),
  /** False: flows have no variance to learn. */
  learnedVariance: z.literal(false),
  /** True if queries and keys are normalized, over all heads together. */
  qkNorm: z.boolean(),
  /** True if there is a norm in front of the attention to the text. */
  crossNorm: z.boolean(),
  /** A number above 0 that all norms add to the variance. */
  epsilon: z.number().positive(),
});

export type WanConfig = z.output<typeof wanSchema>;

/** The places along an axis to which the original's table of rotary positions extends. */
export const mostPositions = 1024;

/** Reports fields that do not fit each other. */
export function checkWan(config: WanConfig, refuse: Refuse): void {
  const { size: sides, frames, patch, hidden: width, heads: headCount, frequencies } = config;
  const axes = [frames, ...sides];
  if (axes.some((length, axis) => length % patch[axis]! !== 0)) {
    refuse(
      "patch",
      `a clip of ${axes.join("×")} cannot be cut into patches of ${patch.join("×")}; choose multiples of these`,
    );
  }
  if (width % (2 * headCount) !== 0) {
    refuse(
      "heads",
      `rotary positions turn pairs of channels, but ${headCount} heads of a width of ${width} would have ${width / headCount} each; choose a number that leaves an even width`,
    );
  }
  if (frequencies % 2 !== 0) {
    refuse(
      "frequencies",
      `half of them are cosines, so ${frequencies} cannot be; give an even number`,
    );
  }
  if (config.outputs !== config.channels) {
    refuse(
      "outputs",
      `a network that is drawn with has as many channels behind as in front, ${config.channels}, not ${config.outputs}`,
    );
  }
}

const published = {
  patch: [1, 2, 2],
  frequencies: 256,
  condition: { kind: "text", width: 4096, length: 512 },
  learnedVariance: false,
  qkNorm: true,
  crossNorm: true,
  epsilon: 1e-6,
} as const;

/** The published models, with the size and the length of the clips for which they are recommended. */
export const wanPresets = {
  // 81 frames of 832×480 pixels, in the latents of Wan2.1's autoencoder.
  "Wan2.1-T2V-1.3B": {
    ...published,
    size: [60, 104],
    frames: 21,
    channels: 16,
    outputs: 16,
    hidden: 1536,
    inner: 8960,
    depth: 30,
    heads: 12,
  },
  "Wan2.1-T2V-14B": {
    ...published,
    size: [90, 160],
    frames: 21,
    channels: 16,
    outputs: 16,
    hidden: 5120,
    inner: 13824,
    depth: 40,
    heads: 40,
  },
  // 121 frames of 1280×704 pixels, in the latents of Wan2.2's autoencoder.
  "Wan2.2-TI2V-5B": {
    ...published,
    size: [44, 80],
    frames: 31,
    channels: 48,
    outputs: 48,
    hidden: 3072,
    inner: 14336,
    depth: 30,
    heads: 24,
  },
} satisfies Record<string, WanConfig>;
