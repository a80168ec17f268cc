/**
 * The judge: it recognises emoji across drawing styles. Histograms of oriented gradients (Dalal & Triggs, 2005) and of
 * colours, in cells of 5×5 pixels, are projected so that pictures of one emoji in different styles come close to each other
 * and different emoji far apart (linear discriminant analysis; Fisher, 1936). The nearest real picture then says what a
 * drawing shows. `scripts/make-judge.ts` computes the projection, apart from the training of every generator.
 */
import { concat } from "../engine/graph/functional.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { conv2d } from "../nn/convolutions.ts";
import { linear } from "../nn/linear.ts";
import { createParams } from "../nn/params.ts";
import type { PictureShape } from "../pictures/picture.ts";
import { imageOf, type TracedExtractor } from "./extractor.ts";

/** The size and channels of the pictures that the judge takes. */
export const judgeShape = { height: 40, width: 40, channels: 3 } as const satisfies PictureShape;

/** Bytes of such a picture. */
export const judgeBytes = judgeShape.height * judgeShape.width * judgeShape.channels;

/** Pixels along a side of a cell, and cells along a side of a picture. */
const CELL = 5;
const CELLS = judgeShape.height / CELL;
/** Directions of gradients of brightness and of two colour differences, and the values of these themselves. */
const [GRADIENTS, COLOURS] = [24, 3];
/** Width of the description before the projection. */
export const descriptionWidth = CELLS * CELLS * (GRADIENTS + COLOURS);
/** Width of the features that say what a picture shows. */
const IDENTITY = 128;

/** Traces the judge: its features [B, 128], of length 1, say what a picture shows; `description` [B, 1728] is before the projection. */
export function traceJudge(): TracedExtractor & { readonly description: Tensor } {
  const params = createParams();
  const image = imageOf(judgeShape);
  const gradients = conv2d(params.at("gradients"), image, GRADIENTS, 3, { bias: false }).relu();
  const colours = conv2d(params.at("colours"), image, COLOURS, 1, { bias: false });
  const cells = (x: Tensor) => x.reshape([batch, x.size(1), CELLS, CELL, CELLS, CELL]).mean([3, 5]); // [B, C, 8, 8]
  const flat = (x: Tensor) => x.reshape([batch, x.size(1) * CELLS * CELLS]);
  // The root weakens strong edges, as the histograms' normalisation does.
  const edges = cells(gradients).add(1e-4).sqrt();
  const description = concat([flat(edges), flat(cells(colours))], 1); // [B, 1728]
  const projected = linear(params.at("projection"), description, IDENTITY);
  const features = projected.div(projected.square().sum(-1, true).add(1e-12).sqrt());
  return { shape: judgeShape, params, description, features };
}
