/** The networks of `attention.ts`: a small DiT with each kind of attention. */
import { ditPresets } from "../src/models/dit/config.ts";
import type { NetworkConfig } from "../src/models/network.ts";

export const attentionKinds = [
  { kind: "full" },
  { kind: "compressed", factor: 4 },
  { kind: "tile", size: 8, window: 3 },
  { kind: "window", size: 16 },
  { kind: "linear" },
] as const;

export type AttentionKind = (typeof attentionKinds)[number];

/** A DiT on latents of 4 channels with `side` × `side` patches. */
export function networkWith(attention: AttentionKind, side: number): NetworkConfig {
  return {
    ...ditPresets["DiT-S/2"],
    kind: "dit",
    size: [2 * side, 2 * side],
    hidden: 256,
    heads: 4,
    depth: 2,
    learnedVariance: false,
    condition: { kind: "none" },
    attention,
  };
}
