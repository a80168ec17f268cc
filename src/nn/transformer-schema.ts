/** The parts that the schemas of transformer configs share. */
import * as z from "zod";
import { type Axes, formatAxes, nearestMultiples } from "./patches.ts";

export const count = z.int().min(1);

export const normSchema = z.strictObject({
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

/** Reports a field that does not fit the others. Messages name the value and what to use instead. */
export type Refuse = (field: string, message: string) => void;

/** Checks that patches divide the image, and that heads and positions divide the width. */
export function checkSizes(
  config: {
    readonly size: Axes;
    readonly patch: number;
    readonly hidden: number;
    readonly heads: number;
    readonly positions?: { readonly kind: string };
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
