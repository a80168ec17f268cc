/** Sizes of the families' default networks, which a few CPU cores train in an hour. */
import { UsageError } from "../engine/errors.ts";
import type { PatchEmbedding } from "../nn/patches.ts";

/** The shape in which a network sees a picture: pixels, latents, or codes. */
export interface ImageShape {
  readonly height: number;
  readonly width: number;
  /** For codes, the channels of the vectors that stand for them. */
  readonly channels: number;
  /** Number of codes; undefined for pixels and latents. */
  readonly codebook?: number | undefined;
  /** Frames of a clip; undefined for still pictures. */
  readonly frames?: number | undefined;
}

/** Head width that is common from ViT on. */
export const headWidth = 64;
/** Patches that a small model can afford on a CPU. */
const fewPatches = 64;
/** The width through which JiT (Li & He, 2025) squeezes a patch of pixels, for a network of this size. */
const bottleneckWidth = 96;

/**
 * Patch and width of a small transformer for a picture, and how it embeds the patches.
 *
 * @param wanted number of patches that the patch should come near to
 */
export function transformerSizes(
  picture: ImageShape,
  given: { readonly patch?: number; readonly hidden?: number },
  wanted = fewPatches,
): { readonly patch: number; readonly hidden: number; readonly patches: PatchEmbedding } {
  const { patch = patchFor(picture, wanted), hidden = 192 } = given;
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

/** The number of heads whose width is a multiple of `unit`, as rotary positions need it, and nearest to `headWidth`. */
export function headsOf(hidden: number, unit: number): number {
  const wanted = Math.max(1, Math.round(hidden / headWidth));
  const apart = (heads: number) => Math.abs(Math.log(hidden / heads / headWidth));
  return Array.from({ length: 2 * wanted }, (_, i) => i + 1)
    .filter((heads) => hidden % (unit * heads) === 0)
    .reduce((best, heads) => (apart(heads) < apart(best) ? heads : best), 1);
}

/** The factors among `factors` by which both sides can be divided and that leave at least 7 places of the shorter one. */
export function halvings(
  { height, width }: ImageShape,
  factors: readonly number[],
): readonly number[] {
  return factors.filter(
    (factor) =>
      height % factor === 0 && width % factor === 0 && Math.min(height, width) / factor >= 7,
  );
}

/** More patches than a default network can be trained with on a CPU. */
const tooManyPatches = 16 * fewPatches;

/** @throws UsageError when the sides have no common divisor that leaves few enough patches, as primes have none */
function patchFor({ height, width }: ImageShape, wanted: number): number {
  const patch = bestPatch(height, width, wanted);
  const patches = (height * width) / patch ** 2;
  if (patches <= tooManyPatches) return patch;
  const unit = Math.max(1, Math.round(Math.sqrt((height * width) / fewPatches)));
  const near = [height, width].map((side) => Math.max(1, Math.round(side / unit)) * unit);
  throw new UsageError(
    `${height}×${width} can only be cut into ${patches.toLocaleString("en")} patches of ${patch}×${patch}, which takes too long to train on; set picture.size so that it is ${near.join("×")}, or set model.patch.`,
  );
}

/** The patch that divides the picture and comes nearest to the wanted number. */
function bestPatch(height: number, width: number, wanted: number): number {
  const shorter = Math.min(height, width);
  const fitting = Array.from({ length: shorter }, (_, i) => i + 1).filter(
    (patch) => height % patch === 0 && width % patch === 0,
  );
  const distance = (patch: number) =>
    Math.abs(Math.log((height * width) / (patch * patch) / wanted));
  return fitting.reduce((best, patch) => (distance(patch) < distance(best) ? patch : best));
}
