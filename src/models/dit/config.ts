/** The config of a DiT and the sizes that the paper publishes. */
import * as z from "zod";
import {
  checkMixing,
  checkPairs,
  checkSizes,
  gridOf,
  patchTransformerFields,
  type Refuse,
} from "../../nn/transformer-schema.ts";

/** Fixed and rotary positions let a DiT draw other sizes than the one it was trained for. */
export const ditSchema = z.strictObject(patchTransformerFields);

export type DiTConfig = z.output<typeof ditSchema>;
export type BlockDesign = DiTConfig["block"];

/** Reports fields that do not fit each other. */
export function checkDiT(config: DiTConfig, refuse: Refuse): void {
  const { hidden, heads, block, condition, rotary } = config;
  checkSizes(config, refuse);
  checkPairs(config, 2, refuse);
  checkMixing(config.attention, gridOf(config), refuse);
  if (rotary && !rotary.pairs && (hidden / heads) % 4 !== 0) {
    refuse(
      "heads",
      `rotary positions turn rows and columns in pairs, so the width of a head, ${hidden / heads}, must be a multiple of 4`,
    );
  }
  if (config.canvas && condition.kind === "none") {
    refuse("canvas", "a canvas is drawn from the condition, but there is none; leave it out");
  }
  const modulated = block.kind === "adaLN" || block.kind === "adaLN-zero";
  if (config.embeddings === "per-block" && (!modulated || condition.kind === "text")) {
    refuse(
      "embeddings",
      "only blocks of kind adaLN or adaLN-zero with a class, or no condition, can have embeddings of their own",
    );
  }
  if ("text" in block && block.text && condition.kind !== "text") {
    refuse("block", `the block takes a text, but the condition is ${condition.kind}`);
  }
}

/** What all models of the paper have in common. */
export const ditPaper = {
  size: [32, 32],
  channels: 4,
  mlpRatio: 4,
  learnedVariance: true,
  condition: { kind: "class", classes: 1000, nullClass: true },
  block: { kind: "adaLN-zero" },
  patches: { kind: "linear" },
  positions: { kind: "sin-cos" },
  rotary: null,
  norm: { kind: "layer", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "gelu", approximate: "tanh" },
  qkNorm: null,
} as const;

const small = { ...ditPaper, depth: 12, hidden: 384, heads: 6 };
const base = { ...ditPaper, depth: 12, hidden: 768, heads: 12 };
const large = { ...ditPaper, depth: 24, hidden: 1024, heads: 16 };
const extraLarge = { ...ditPaper, depth: 28, hidden: 1152, heads: 16 };

/** The paper's models, on latents of 256×256 pixels. */
export const ditPresets = {
  "DiT-S/8": { ...small, patch: 8 },
  "DiT-S/4": { ...small, patch: 4 },
  "DiT-S/2": { ...small, patch: 2 },
  "DiT-B/8": { ...base, patch: 8 },
  "DiT-B/4": { ...base, patch: 4 },
  "DiT-B/2": { ...base, patch: 2 },
  "DiT-L/8": { ...large, patch: 8 },
  "DiT-L/4": { ...large, patch: 4 },
  "DiT-L/2": { ...large, patch: 2 },
  "DiT-XL/8": { ...extraLarge, patch: 8 },
  "DiT-XL/4": { ...extraLarge, patch: 4 },
  "DiT-XL/2": { ...extraLarge, patch: 2 },
} satisfies Record<string, DiTConfig>;
