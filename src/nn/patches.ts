/** Images as sequences of patches, and back (Dosovitskiy et al., 2021). */
import { ShapeError } from "../engine/errors.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear } from "./linear.ts";
import { type Params, xavierUniform, zero } from "./params.ts";

/** One linear layer, or one without bias to a narrow width and one from there (Li & He, 2025). */
export type PatchEmbedding =
  | { readonly kind: "linear" }
  | { readonly kind: "bottleneck"; readonly width: number };

/** How the pixels of a patch [p rows, q columns, c channels] lie in a token. */
export type PatchOrder = "c p q" | "p q c";

/**
 * Rows and columns of patches in [B, C, H, W].
 *
 * @throws ShapeError when the patch does not divide the image
 */
export function patchGrid(image: Tensor, patch: number): readonly [rows: number, columns: number] {
  const [height, width] = [image.size(-2), image.size(-1)];
  if (height % patch === 0 && width % patch === 0) return [height / patch, width / patch];
  const nearest = [height, width].map((size) => Math.max(1, Math.round(size / patch)) * patch);
  throw new ShapeError(
    `An image of ${height}×${width} cannot be cut into patches of ${patch}×${patch}; use a multiple of ${patch}, such as ${nearest.join("×")}.`,
  );
}

/** [B, C, H, W] → [B, N, C·patch²], patches in row-major order. */
export function patchify(image: Tensor, patch: number, order: PatchOrder): Tensor {
  patchGrid(image, patch);
  return image.rearrange(`b c (h p) (w q) -> b (h w) (${order})`, { p: patch, q: patch });
}

/** The inverse of `patchify`: [B, rows·columns, C·patch²] → [B, C, rows·patch, columns·patch]. */
export function unpatchify(
  tokens: Tensor,
  [rows, columns]: readonly [rows: number, columns: number],
  patch: number,
  order: PatchOrder,
): Tensor {
  const sizes = { h: rows, w: columns, p: patch, q: patch };
  return tokens.rearrange(`b (h w) (${order}) -> b c (h p) (w q)`, sizes);
}

/**
 * [B, C, H, W] → [B, N, hidden]. Weights have the layout of a convolution with stride `patch`, which
 * it is; but a product of matrices is faster, forward and backward.
 *
 * Names: `proj`, as timm's, or JiT's `proj1` and `proj2`.
 */
export function patchEmbedding(
  p: Params,
  image: Tensor,
  patch: number,
  hidden: number,
  embedding: PatchEmbedding,
): Tensor {
  const patches = patchify(image, patch, "c p q"); // [B, N, C·patch²]
  const inputs = patches.size(-1);
  const kernel = (scope: Params, outputs: number) =>
    scope
      .param("weight", [outputs, image.size(1), patch, patch], xavierUniform([outputs, inputs]))
      .reshape([outputs, inputs]);
  if (embedding.kind === "linear") {
    const proj = p.at("proj");
    return patches.linear(kernel(proj, hidden), proj.param("bias", [hidden], zero)); // [B, N, hidden]
  }
  const narrow = patches.linear(kernel(p.at("proj1"), embedding.width)); // [B, N, width]
  return linear(p.at("proj2"), narrow, hidden); // [B, N, hidden]
}
