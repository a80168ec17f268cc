/** The parts that the schemas of transformer configs share. */
import * as z from "zod";
import { type Axes, formatAxes, nearestMultiples } from "./patches.ts";
import type { TokenMixing } from "./token-mixing.ts";

export const count = z.int().min(1);

const normSchema = z.strictObject({
  kind: z.enum(["layer", "rms"]),
  affine: z.boolean(),
  epsilon: z.number().positive().default(1e-6),
});

/** The schema of a condition. */
export const conditionSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({ kind: z.literal("class"), classes: count, nullClass: z.boolean() }),
  z.strictObject({ kind: z.literal("text"), width: count, length: count }),
]);

/**
 * How tokens attend to each other, for networks that are trained from scratch; every token to every other unless given. "linear" is
 * Sana's attention with ReLU kernels, "window" attends within windows of `size` patches along each axis, which are shifted in every
 * other block, and "compressed" joins the keys and values of `factor` × `factor` patches, as PixArt-Σ does.
 */
export const mixingField = {
  attention: z
    .discriminatedUnion("kind", [
      z.strictObject({ kind: z.literal("full") }),
      z.strictObject({ kind: z.literal("linear") }),
      z.strictObject({ kind: z.literal("window"), size: z.int().min(2) }),
      z.strictObject({ kind: z.literal("compressed"), factor: z.int().min(2) }),
    ])
    .optional(),
};

/** Patches along each axis of the picture of a config. */
export function gridOf({ size, patch }: { readonly size: Axes; readonly patch: number }): Axes {
  return size.map((side) => side / patch);
}

/** Reports windows or joined patches that do not divide the patches of a picture or clip. */
export function checkMixing(attention: TokenMixing | undefined, grid: Axes, refuse: Refuse): void {
  // A patch that does not divide the picture is reported by itself.
  if (!grid.every(Number.isInteger)) return;
  if (attention?.kind === "window") {
    const { size } = attention;
    if (grid.every((length) => length <= size || length % size === 0)) return;
    refuse(
      "attention",
      `windows of ${size} patches do not divide the ${formatAxes(grid)} patches of the picture; choose ${sizesFor(grid)}, or another patch`,
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
  size: z.tuple([count, count]).readonly(),
  channels: count,
  patch: count,
  hidden: count,
  depth: count,
  heads: count,
  mlpRatio: z.number().positive(),
  learnedVariance: z.boolean(),
};

/** The same, and the parts of a block. */
export const transformerFields = {
  ...sizeFields,
  patches: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("linear") }),
    z.strictObject({ kind: z.literal("bottleneck"), width: count }),
  ]),
  norm: normSchema,
  feedForward: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("gelu"), approximate: z.enum(["none", "tanh"]) }),
    z.strictObject({ kind: z.literal("swiglu") }),
  ]),
  qkNorm: normSchema.nullable(),
  modulationRank: count.optional(),
};

const textRoute = z.enum(["in-context", "cross-attention"]);

/** The fields of a patch transformer. Fixed and rotary positions let it draw other sizes than the one it was trained for. */
export const patchTransformerFields = {
  ...transformerFields,
  ...mixingField,
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
  positions: z.strictObject({ kind: z.enum(["sin-cos", "learned", "none"]) }),
  /**
   * Adds to each patch's token a vector that depends on its place and on the condition: one linear layer draws a map of `width`
   * channels from the condition, and another brings each place of it to the width of the tokens. A map fits one picture size.
   */
  canvas: z.strictObject({ width: count }).optional(),
  /** Rotates queries and keys by their place along each axis. */
  rotary: z
    .strictObject({
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
