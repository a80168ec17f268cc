/** Networks that nothing is said about: at a size that a few cores train in an hour. */
import type { z } from "zod";
import type { DDPMUNetConfig } from "../../models/ddpm-unet/ddpm-unet.ts";
import type { DiTConfig } from "../../models/dit/dit.ts";
import { type MMDiTConfig, mmditPresets } from "../../models/mmdit/mmdit.ts";
import type { paellaSchema } from "../../models/paella/schema.ts";
import type { UViTConfig } from "../../models/u-vit/u-vit.ts";

/** What it sees of a picture: pixels, or their latents. */
export interface ImageShape {
  readonly height: number;
  readonly width: number;
  /** Of vectors that stand for tokens, where it is these. */
  readonly channels: number;
  readonly codebook?: number | undefined;
}

/** Without what the data says. */
type Architecture<Config> = Omit<Config, "size" | "channels" | "condition">;
export type DiTLike = Architecture<DiTConfig>;
export type MMDiTLike = Architecture<MMDiTConfig>;
export type UViTLike = Architecture<UViTConfig>;
export type UNetLike = Architecture<DDPMUNetConfig>;
export type PaellaLike = Omit<
  z.output<typeof paellaSchema>,
  "kind" | "size" | "channels" | "condition"
>;

/** Head width that is common from ViT on. */
const headWidth = 64;
/** Tokens that a small model can afford on a CPU. */
const fewTokens = 64;
/** What JiT (Li & He, 2025) squeezes a patch of pixels through, for a network of this size. */
const bottleneckWidth = 96;

/** As later recipes for pixels have it (JiT). */
export function defaultDiT(picture: ImageShape, given: Partial<DiTConfig>): DiTLike {
  const { patch, hidden, patches } = sizes(picture, given);
  return {
    patch,
    hidden,
    depth: 6,
    heads: headsOf(hidden, given.rotary === null ? 1 : 4),
    mlpRatio: 4,
    learnedVariance: false,
    block: { kind: "adaLN-zero" },
    patches,
    positions: { kind: "sin-cos" },
    rotary: { theta: 100 },
    norm: { kind: "rms", affine: false, epsilon: 1e-6 },
    feedForward: { kind: "swiglu" },
    qkNorm,
  };
}

const qkNorm = { kind: "rms", affine: true, epsilon: 1e-6 } as const;

/** Stable Diffusion 3.5's at another size, with places for pictures twice as large. */
export function defaultMMDiT(picture: ImageShape, given: Partial<MMDiTConfig>): MMDiTLike {
  const { patch, hidden, patches } = sizes(picture, given);
  return {
    ...mmditPresets["SD3-medium"],
    patch,
    hidden,
    depth: 6,
    heads: headsOf(hidden, 1),
    patches,
    positions: {
      kind: "sin-cos",
      max: 2 * Math.ceil(Math.max(picture.height, picture.width) / patch),
    },
    qkNorm,
  };
}

/** The paper's with fewer channels. */
export function defaultUViT(picture: ImageShape, given: Partial<UViTConfig>): UViTLike {
  const { patch, hidden } = sizes(picture, given);
  return {
    patch,
    hidden,
    depth: 6,
    heads: headsOf(hidden, 1),
    mlpRatio: 4,
    qkvBias: false,
    timeMlp: false,
    longSkips: true,
    finalConv: true,
    learnedVariance: false,
  };
}

/** ADM's with fewer channels: levels down to about 8×8, attention from 16×16 on. */
export function defaultUNet({ height, width }: ImageShape): UNetLike {
  const shorter = Math.min(height, width);
  const levels = [2, 4, 8, 16].filter(
    (times) => height % times === 0 && width % times === 0 && shorter / times >= 7,
  );
  return {
    width: 64,
    multipliers: [1, ...levels.map(() => 2)],
    blocks: 2,
    attention: levels.filter((times) => shorter / times <= 16),
    heads: { channels: headWidth },
    headOrder: "new",
    scaleShift: true,
    residualResampling: true,
    learnedVariance: false,
  };
}

/** The third version's with fewer channels and levels, down to about 8×8 places. */
export function defaultPaella({ height, width }: ImageShape): PaellaLike {
  const shorter = Math.min(height, width);
  const halves = [2, 4].filter(
    (times) => height % times === 0 && width % times === 0 && shorter / times >= 7,
  );
  const attending = { width: 192, heads: 3, blocks: 3, parts: "CTA" };
  const above = halves.map(() => ({ width: 96, heads: 1, blocks: 2, parts: "CT" }));
  return {
    patch: 1,
    shareWidth: 64,
    conditionWidth: 192,
    textWidth: 192,
    levels: [...above, attending],
    kernel: 3,
    selfAttention: true,
    learnedVariance: false,
  };
}

function sizes(
  picture: ImageShape,
  given: { readonly patch?: number; readonly hidden?: number },
): Pick<DiTConfig, "patch" | "hidden" | "patches"> {
  const { patch = patchFor(picture), hidden = 192 } = given;
  const values = patch * patch * picture.channels;
  return {
    patch,
    hidden,
    patches:
      values > bottleneckWidth && picture.codebook === undefined
        ? { kind: "bottleneck", width: bottleneckWidth }
        : { kind: "linear" },
  };
}

/** As many heads of a width that is a multiple of `unit`, as rotary positions need it, as come nearest to `headWidth`. */
export function headsOf(hidden: number, unit: number): number {
  const wanted = Math.max(1, Math.round(hidden / headWidth));
  const apart = (heads: number) => Math.abs(Math.log(hidden / heads / headWidth));
  return Array.from({ length: 2 * wanted }, (_, i) => i + 1)
    .filter((heads) => hidden % (unit * heads) === 0)
    .reduce((best, heads) => (apart(heads) < apart(best) ? heads : best), 1);
}

/** The patch that divides the picture and comes nearest to few tokens. */
function patchFor({ height, width }: ImageShape): number {
  const shorter = Math.min(height, width);
  const fitting = Array.from({ length: shorter }, (_, i) => i + 1).filter(
    (patch) => height % patch === 0 && width % patch === 0,
  );
  const distance = (patch: number) =>
    Math.abs(Math.log((height * width) / (patch * patch) / fewTokens));
  return fitting.reduce((best, patch) => (distance(patch) < distance(best) ? patch : best));
}
