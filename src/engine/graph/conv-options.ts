/** Short forms in which a convolution is written. */
import type { ConvAttributes } from "./ops.ts";

/** One number for all spatial axes, or one for each. */
export interface ConvOptions {
  readonly stride?: number | readonly number[];
  readonly padding?: number | readonly (number | readonly [number, number])[];
  readonly dilation?: number | readonly number[];
  readonly groups?: number;
}

/** Attributes with one entry for each of the spatial axes. */
export function convAttributes(spatial: number, options: ConvOptions): ConvAttributes {
  const { padding = 0 } = options;
  const pairs = typeof padding === "number" ? new Array<number>(spatial).fill(padding) : padding;
  return {
    stride: perAxis(options.stride ?? 1, spatial),
    padding: pairs.map((pair) => (typeof pair === "number" ? ([pair, pair] as const) : pair)),
    dilation: perAxis(options.dilation ?? 1, spatial),
    groups: options.groups ?? 1,
  };
}

export function perAxis(value: number | readonly number[], count: number): readonly number[] {
  return typeof value === "number" ? new Array<number>(count).fill(value) : value;
}
