/** The parts that the schemas of transformer configs share. */
import * as z from "zod";
import { type Axes, formatAxes, nearestMultiples } from "./patches.ts";
import type { TokenMixing } from "./token-mixing.ts";

export const count = z.int().min(1);

const normSchema = z.strictObject({
  /** LayerNorm ("layer"; Ba et al., 2016) or RMSNorm ("rms"; Zhang & Sennrich, 2019). */
  kind: z.enum(["layer", "rms"]),
  /** True for a norm with a trained scale, and for LayerNorm also a trained shift. */
  affine: z.boolean(),
  /** A number above 0 that is added to the variance; 1e-6 by default. */
  epsilon: z.number().positive().default(1e-6),
});

/** Channels of the tokens of a text. */
export const tokenWidth = z.int().min(1);

/** The number of tokens of a text, from 1. */
export const tokenCount = z.int().min(1);

/** The schema of a condition. */
export const conditionSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({
    kind: z.literal("class"),
    /** The number of classes, from 1. */
    classes: count,
    /** True for one more class, which stands for none, as guidance needs it. */
    nullClass: z.boolean(),
  }),
  z.strictObject({ kind: z.literal("text"), width: tokenWidth, length: tokenCount }),
]);

/** The field of configs that says how tokens attend to each other. */
export const mixingField = {
  /**
   * How tokens attend to each other, for networks that are trained from scratch; every token to every other unless given. "linear" is
   * Sana's attention with ReLU kernels, "window" attends within windows of `size` patches along each axis, which are shifted in every
   * other block, "tile" cuts the patches into tiles of `size` along each axis, each of which attends to the `window` tiles along each axis
   * around it (sliding tile attention), and "compressed" joins the keys and values of `factor` × `factor` patches, as PixArt-Σ does.
   */
  attention: z
    .discriminatedUnion("kind", [
      z.strictObject({ kind: z.literal("full") }),
      z.strictObject({ kind: z.literal("linear") }),
      z.strictObject({
        kind: z.literal("window"),
        /** Patches along each side of a window, from 2. */
        size: z.int().min(2),
      }),
      z.strictObject({
        kind: z.literal("tile"),
        /** Patches along each side of a tile, from 1. */
        size: z.int().min(1),
        /** Tiles along each side of a window, an odd number from 3; fewer where a side has fewer. */
        window: z
          .int()
          .min(3)
          .refine(
            (tiles) => tiles % 2 === 1,
            "an even number of tiles has no middle; choose 3 or 5",
          ),
      }),
      z.strictObject({
        kind: z.literal("compressed"),
        /** Patches along each side that share a key and a value, from 2. */
        factor: z.int().min(2),
      }),
    ])
    .optional(),
};

/** Patches along each axis of the picture of a config. */
export function gridOf({ size, patch }: { readonly size: Axes; readonly patch: number }): Axes {
  return size.map((side) => side / patch);
}

/** Reports windows, tiles or joined patches that do not divide the patches of a picture or clip. */
export function checkMixing(attention: TokenMixing | undefined, grid: Axes, refuse: Refuse): void {
  // A patch that does not divide the picture is reported by itself.
  if (!grid.every(Number.isInteger)) return;
  if (attention?.kind === "window" || attention?.kind === "tile") {
    const { kind, size } = attention;
    if (grid.every((length) => length <= size || length % size === 0)) return;
    refuse(
      "attention",
      `${kind}s of ${size} patches do not divide the ${formatAxes(grid)} patches of the picture; choose ${sizesFor(grid)}, or another patch`,
    );
  }
  if (attention?.kind === "compressed") {
    const { factor } = attention;
    const places = grid.slice(-2);
    if (places.every((length) => length % factor === 0)) return;
    refuse(
      "attention",
      `a factor of ${factor} does not divide the ${formatAxes(places)} patches of the picture; choose ${sizesFor(places)}, or another patch`,
    );
  }
}

/** The numbers from 2 on that divide all sides: "2, 4 or 8". */
function sizesFor(grid: Axes): string {
  const least = Math.min(...grid);
  const fitting = Array.from({ length: Math.max(0, least - 1) }, (_, i) => i + 2).filter((size) =>
    grid.every((length) => length % size === 0),
  );
  return fitting.length === 0
    ? "full or linear attention"
    : fitting.join(", ").replace(/, (\d+)$/, " or $1");
}

/** The sizes of the image and of the blocks. */
export const sizeFields = {
  /** Height and width of what the network sees, in pixels, or in latents or codes of an autoencoder; each at least 1. */
  size: z.tuple([count, count]).readonly(),
  /** Channels of the input: 1 or 3 for pixels, those of the autoencoder for latents. */
  channels: count,
  /** Height and width of a patch in pixels or latents; it must divide `size`. Half of it gives four times as many tokens. */
  patch: count,
  /** Channels of a token, a multiple of `heads`. */
  hidden: count,
  /** The number of transformer blocks, at least 1. */
  depth: count,
  /** The number of attention heads of a block, which share the `hidden` channels evenly. */
  heads: count,
  /** Width of a block's feed-forward layer as a multiple of `hidden`; 4 in most papers. */
  mlpRatio: z.number().positive(),
  /** Predicts the variance of each step too, which doubles the output channels; only for the process "discrete". */
  learnedVariance: z.boolean(),
};

/** The same, and the parts of a block. */
export const transformerFields = {
  ...sizeFields,
  /** The embedding of patches: one linear layer, or two with `width` channels between them ("bottleneck"; JiT, Li & He, 2025). */
  patches: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("linear") }),
    z.strictObject({
      kind: z.literal("bottleneck"),
      /** Channels between the two layers. */
      width: count,
    }),
  ]),
  /** The norm in front of attention and feed-forward layers. */
  norm: normSchema,
  /** The feed-forward layer of a block: GELU, exact ("none") or approximated by tanh, or SwiGLU (Shazeer, 2020). */
  feedForward: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("gelu"),
      /** "none" for the exact GELU, "tanh" for its usual approximation. */
      approximate: z.enum(["none", "tanh"]),
    }),
    z.strictObject({ kind: z.literal("swiglu") }),
  ]),
  /** The norm of queries and keys in each head; null for none. */
  qkNorm: normSchema.nullable(),
  /** Rank of the matrices that compute each block's scales, shifts and gates from the condition; full matrices unless given. */
  modulationRank: count.optional(),
};

/** The way on which the tokens of a text reach the blocks, too; only their mean does unless given. */
const textRoute = z.enum(["in-context", "cross-attention"]);

/** The fields of a patch transformer. Fixed and rotary positions let it draw other sizes than the one it was trained for. */
export const patchTransformerFields = {
  ...transformerFields,
  ...mixingField,
  /** The condition: none, one of `classes` (`nullClass` adds one for no class, which guidance needs), or a text of `length` tokens of `width` channels. */
  condition: conditionSchema,
  /**
   * How time and condition reach the blocks: as tokens among the patches, by attention to tokens beside them, or by norms
   * whose scale and shift depend on one vector. "adaLN-zero" gates each branch as well, with 0 at first. With adaLN a text
   * enters as the mean of its tokens, and with `text` also as the tokens themselves.
   */
  block: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("in-context") }),
    z.strictObject({ kind: z.literal("cross-attention") }),
    z.strictObject({ kind: z.literal("adaLN"), text: textRoute.optional() }),
    z.strictObject({ kind: z.literal("adaLN-zero"), text: textRoute.optional() }),
  ]),
  /**
   * Where time and class are embedded: once for all blocks, as in the original, or in each block for itself and at the frequencies
   * of diffusers, as in a DiT that was trained there. Shared unless given.
   */
  embeddings: z.enum(["shared", "per-block"]).optional(),
  /** The norm before each feed-forward layer, if it is not `norm`. */
  feedForwardNorm: normSchema.optional(),
  /** What is added to each patch's token: a fixed table, a trained one, or nothing. */
  positions: z.strictObject({
    /** "sin-cos" for a fixed table, "learned" for a trained one, "none" for nothing. */
    kind: z.enum(["sin-cos", "learned", "none"]),
  }),
  /**
   * Adds to each patch's token a vector that depends on its place and on the condition: one linear layer draws a map of `width`
   * channels from the condition, and another brings each place of it to the width of the tokens. A map fits one picture size.
   */
  canvas: z
    .strictObject({
      /** Channels of the map. */
      width: count,
    })
    .optional(),
  /** Rotates queries and keys by their place along each axis. */
  rotary: z
    .strictObject({
      /** The base of the frequencies, above 0; 10,000 in most papers. */
      theta: z.number().positive(),
      /** Pairs of a head's channels that each axis turns, together half of a head; equal shares unless given. */
      pairs: z.array(z.int().min(0)).readonly().optional(),
    })
    .nullable(),
};

/** Reports a field that does not fit the others. Messages name the value and what to use instead. */
export type Refuse = (field: string, message: string) => void;

/** Checks that patches divide the image, and that heads and positions divide the width. */
export function checkSizes(
  config: {
    readonly size: Axes;
    readonly patch: number;
    readonly hidden: number;
    readonly heads: number;
    readonly positions?: { readonly kind: string } | undefined;
  },
  refuse: Refuse,
): void {
  const { size, patch, hidden, heads, positions } = config;
  if (size.some((side) => side % patch !== 0)) {
    refuse(
      "patch",
      `a picture of ${formatAxes(size)} cannot be cut into patches of ${formatAxes(size.map(() => patch))}; choose a size that is a multiple of ${patch}, such as ${formatAxes(nearestMultiples(size, patch))}, or another patch`,
    );
  }
  if (hidden % heads !== 0) {
    refuse("heads", `${heads} heads do not divide the hidden width ${hidden}`);
  }
  if (positions?.kind === "sin-cos" && hidden % 4 !== 0) {
    refuse("hidden", `sin-cos positions need a width that is a multiple of 4, but it is ${hidden}`);
  }
}

/** Reports the pairs of channels that axes turn, if they are given and do not fill a head. */
export function checkPairs(
  {
    hidden,
    heads,
    rotary,
  }: {
    readonly hidden: number;
    readonly heads: number;
    readonly rotary: { readonly pairs?: readonly number[] | undefined } | null;
  },
  axes: number,
  refuse: Refuse,
): void {
  const pairs = rotary?.pairs;
  if (!pairs) return;
  const all = pairs.reduce((sum, each) => sum + each, 0);
  if (pairs.length === axes && all === hidden / heads / 2) return;
  refuse(
    "rotary",
    `pairs of ${pairs.join(", ")} must be ${axes} numbers, one for each axis, that add up to the ${hidden / heads / 2} pairs of a head's channels`,
  );
}

/** Reports rotary axes that do not fill a head. */
export function checkAxes(
  config: { readonly hidden: number; readonly heads: number; readonly axes: readonly number[] },
  refuse: Refuse,
): void {
  const { hidden, heads, axes } = config;
  const all = axes.reduce((sum, axis) => sum + axis, 0);
  if (all !== hidden / heads || axes.some((axis) => axis % 2 !== 0)) {
    refuse(
      "axes",
      `rotary axes of ${axes.join(", ")} channels must be even and add up to the ${hidden / heads} channels of a head`,
    );
  }
}
