/**
 * The judge: it recognises emoji across drawing styles. Histograms of oriented gradients (Dalal & Triggs, 2005) and of
 * colours, in cells of 5×5 pixels, are projected so that pictures of one emoji in different styles come close to each other
 * and different emoji far apart (linear discriminant analysis; Fisher, 1936). The nearest real picture then says what a
 * drawing shows. `scripts/make-judge.ts` computes the projection, apart from the training of every generator.
 */
import { arrayWeights } from "../engine/runtime/stored-weight.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { concat, input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { conv2d } from "../nn/convolutions.ts";
import { linear } from "../nn/linear.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";
import { type PictureShape, valuesOf } from "../pictures/picture.ts";
import type { Features } from "./distances.ts";

/** The size and channels of the pictures that the judge takes. */
export const judgeShape = { height: 40, width: 40, channels: 3 } as const satisfies PictureShape;

/** Pixels along a side of a cell, and cells along a side of a picture. */
const CELL = 5;
const CELLS = judgeShape.height / CELL;
/** Directions of gradients of brightness and of two colour differences, and the values of these themselves. */
const [GRADIENTS, COLOURS] = [24, 3];
/** Width of the description before the projection. */
export const descriptionWidth = CELLS * CELLS * (GRADIENTS + COLOURS);
/** Width of the features that say what a picture shows. */
const IDENTITY = 128;

export interface TracedJudge {
  readonly params: ParamsRoot;
  /** [B, 1728], before the projection. */
  readonly description: Tensor;
  /** [B, 128], of length 1: what a picture shows. */
  readonly identity: Tensor;
}

/** Traces the judge on an input `image` [B, 3, 40, 40] in [−1, 1]. */
export function traceJudge(): TracedJudge {
  const params = createParams();
  const { channels, height, width } = judgeShape;
  const image = input("image", [batch, channels, height, width]);
  const gradients = conv2d(params.at("gradients"), image, GRADIENTS, 3, { bias: false }).relu();
  const colours = conv2d(params.at("colours"), image, COLOURS, 1, { bias: false });
  const cells = (x: Tensor) => x.reshape([batch, x.size(1), CELLS, CELL, CELLS, CELL]).mean([3, 5]); // [B, C, 8, 8]
  const flat = (x: Tensor) => x.reshape([batch, x.size(1) * CELLS * CELLS]);
  // The root weakens strong edges, as the histograms' normalisation does.
  const edges = cells(gradients).add(1e-4).sqrt();
  const description = concat([flat(edges), flat(cells(colours))], 1); // [B, 1728]
  const projected = linear(params.at("projection"), description, IDENTITY);
  const identity = projected.div(projected.square().sum(-1, true).add(1e-12).sqrt());
  return { params, description, identity };
}

export interface Judge {
  /**
   * Features of pictures, each row of length 1.
   *
   * @param pixels [count, 40, 40, 3]
   */
  look(pixels: Uint8Array): Promise<Features>;
  dispose(): Promise<void>;
}

/** Pictures in one run of the network. */
const RUN = 100;

/** Opens the judge on weights by their checkpoint keys. */
export async function openJudge(
  backend: Backend,
  weights: Readonly<Record<string, NdArray>>,
): Promise<Judge> {
  const { identity } = traceJudge();
  const program = await backend.compile(graphOf({ identity }), {
    weights: arrayWeights(weights),
  });
  const bytes = judgeShape.height * judgeShape.width * judgeShape.channels;
  return {
    async look(pixels) {
      const count = pixels.length / bytes;
      const values = new Float32Array(count * IDENTITY);
      for (let from = 0; from < count; from += RUN) {
        const some = pixels.subarray(from * bytes, (from + RUN) * bytes);
        const result = await program.run({ image: valuesOf(some, judgeShape) });
        values.set(result["identity"]!.data as Float32Array, from * IDENTITY);
      }
      return { count, width: IDENTITY, values };
    },
    dispose: () => program.dispose(),
  };
}
