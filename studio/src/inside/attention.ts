/** Reading attention: rows and columns of a head, and what they say about it. */
import type { Attention } from "./looks.ts";

/** The mean of all heads, in place of a head's number. */
export const ALL_HEADS = -1;

/** Where a patch looks ("from"), or who looks at it ("to"). */
export type Direction = "from" | "to";

/** The patches of a picture in rows and columns. */
export interface PatchGrid {
  readonly columns: number;
  readonly rows: number;
}

export function gridOf(patches: number, width: number, height: number): PatchGrid {
  const columns = Math.round(Math.sqrt((patches * width) / height));
  return { columns, rows: Math.round(patches / columns) };
}

/** The shares [patches] of one patch by one head, or by the mean of all. */
export function sharesOf(
  { heads, tokens, shares }: Attention,
  head: number,
  patch: number,
  patches: number,
  direction: Direction,
): Float32Array {
  const chosen = head === ALL_HEADS ? [...Array(heads).keys()] : [head];
  const result = new Float32Array(patches);
  for (const each of chosen) {
    const start = each * tokens * tokens;
    for (let other = 0; other < patches; other++) {
      const [row, column] = direction === "from" ? [patch, other] : [other, patch];
      result[other]! += shares[start + row * tokens + column]! / chosen.length;
    }
  }
  return result;
}

/** The sum of a row with all of its tokens, which is 1. */
export function rowSum({ heads, tokens, shares }: Attention, head: number, patch: number): number {
  const chosen = head === ALL_HEADS ? [...Array(heads).keys()] : [head];
  let sum = 0;
  for (const each of chosen) {
    const start = each * tokens * tokens + patch * tokens;
    for (let i = 0; i < tokens; i++) sum += shares[start + i]! / chosen.length;
  }
  return sum;
}

/** The mean distance in patches that a head looks, over all of its rows. */
export function meanDistance(
  { tokens, shares }: Attention,
  head: number,
  { columns, rows }: PatchGrid,
): number {
  const patches = columns * rows;
  const start = head * tokens * tokens;
  let total = 0;
  for (let i = 0; i < patches; i++) {
    for (let j = 0; j < patches; j++) {
      const across = (i % columns) - (j % columns);
      const down = Math.floor(i / columns) - Math.floor(j / columns);
      total += shares[start + i * tokens + j]! * Math.hypot(across, down);
    }
  }
  return total / patches;
}

/** The entropy of shares in bits: their base-2 exponential is to how many patches they are spread. */
export function entropyOf(shares: Float32Array): number {
  let entropy = 0;
  for (const share of shares) if (share > 0) entropy -= share * Math.log2(share);
  return entropy;
}

/** Colours of shares from 0 to 1, by direction: dark, through a hue, to near white. */
const ramps: Readonly<Record<Direction, readonly (readonly [number, number, number])[]>> = {
  from: [
    [20, 14, 26],
    [84, 24, 60],
    [176, 48, 44],
    [242, 122, 40],
    [255, 214, 130],
    [255, 250, 235],
  ],
  to: [
    [12, 18, 32],
    [18, 54, 92],
    [20, 108, 148],
    [52, 170, 184],
    [150, 224, 208],
    [240, 255, 250],
  ],
};

export function colourOf(share: number, direction: Direction): readonly [number, number, number] {
  const ramp = ramps[direction];
  const at = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  const [a, b] = [ramp[low]!, ramp[low + 1]!];
  return [0, 1, 2].map((c) => Math.round(a[c]! + (at - low) * (b[c]! - a[c]!))) as [
    number,
    number,
    number,
  ];
}
