/** The config of an MMDiT and the published sizes of Stable Diffusion 3. */
import * as z from "zod";
import {
  checkMixing,
  checkSizes,
  count,
  gridOf,
  mixingField,
  tokenCount,
  tokenWidth,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

export const mmditSchema = z.strictObject({
  ...transformerFields,
  ...mixingField,
  /**
   * A class or a text. With `pooled`, encoders give the tokens of a text and a pooled vector of so many channels; without
   * it the vector is the mean of the tokens.
   */
  condition: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("class"),
      /** The number of classes, from 1. */
      classes: count,
      /** True for one more class, which stands for none, as guidance needs it. */
      nullClass: z.boolean(),
    }),
    z.strictObject({
      kind: z.literal("text"),
      width: tokenWidth,
      length: tokenCount,
      /** Channels of the pooled vector; without one it is the mean of the tokens. */
      pooled: count.optional(),
    }),
  ]),
  /**
   * A position table for `max`×`max` patches, from whose middle an image takes what it needs: sines and cosines, or what a
   * checkpoint stores.
   */
  positions: z.strictObject({
    /** "sin-cos" for sines and cosines, "stored" for the table of a checkpoint. */
    kind: z.enum(["sin-cos", "stored"]),
    /** Patches along each side of the table. */
    max: count,
  }),
  /** True if queries, keys and values have a bias. */
  qkvBias: z.boolean(),
  /** Blocks, from 0, whose image tokens attend to each other once more, without the text (MMDiT-X). */
  dualAttention: z.array(z.int().min(0)).readonly(),
});

/** `feedForward` of kind "swiglu" is LLaMA's: no biases, and a width rounded up to a multiple of 256. */
export type MMDiTConfig = z.output<typeof mmditSchema>;

/** Reports fields that do not fit each other. */
export function checkMMDiT(config: MMDiTConfig, refuse: Refuse): void {
  const { size, patch, depth, positions, dualAttention } = config;
  checkSizes(config, refuse);
  checkMixing(config.attention, gridOf(config), refuse);
  const longer = Math.max(...size);
  if (longer > positions.max * patch) {
    refuse(
      "positions",
      `positions for ${positions.max}×${positions.max} patches of ${patch}×${patch} do not cover a picture of ${size.join("×")}; make max at least ${Math.ceil(longer / patch)}`,
    );
  }
  const wrong = dualAttention.find((block) => block >= depth);
  if (wrong !== undefined) {
    refuse(
      "dualAttention",
      `there is no block ${wrong}, as ${depth} blocks are numbered from 0 to ${depth - 1}`,
    );
  }
}

const rms = { kind: "rms", affine: true, epsilon: 1e-6 } as const;

/** Patches of 64×64, as the published models draw them at 1024×1024 pixels, and 77 tokens of CLIP with 77 of T5. */
const published = {
  size: [128, 128],
  channels: 16,
  patch: 2,
  mlpRatio: 4,
  learnedVariance: false,
  condition: { kind: "text", width: 4096, length: 154, pooled: 2048 },
  patches: { kind: "linear" },
  positions: { kind: "stored", max: 192 },
  norm: { kind: "layer", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "gelu", approximate: "tanh" },
  qkNorm: null,
  qkvBias: true,
  dualAttention: [],
} as const;

/** The published models of Stable Diffusion 3, on latents. */
export const mmditPresets = {
  "SD3-medium": { ...published, hidden: 1536, depth: 24, heads: 24 },
  "SD3.5-medium": {
    ...published,
    hidden: 1536,
    depth: 24,
    heads: 24,
    positions: { kind: "stored", max: 384 },
    qkNorm: rms,
    dualAttention: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
  },
  "SD3.5-large": { ...published, hidden: 2432, depth: 38, heads: 38, qkNorm: rms },
} satisfies Record<string, MMDiTConfig>;
