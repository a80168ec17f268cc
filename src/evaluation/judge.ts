/**
 * The judge: a small convolutional network that recognises emoji across drawing styles. Its features place pictures of the
 * same emoji close to each other, whatever the style, so that the nearest real picture says what a drawing shows. Its
 * weights are trained by `scripts/make-judge.ts`, apart from every generator.
 */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { concat, input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { conv2d } from "../nn/conv.ts";
import { groupNorm } from "../nn/group-norm.ts";
import { linear } from "../nn/linear.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";
import type { PictureShape } from "../pictures/picture.ts";
import { valuesOf } from "../pictures/pixels.ts";
import type { Features } from "./features.ts";

/** The size and channels of the pictures that the judge takes. */
export const judgeShape = { height: 40, width: 40, channels: 3 } as const satisfies PictureShape;

/** Width of the features that say what a picture shows. */
const IDENTITY = 128;
/** Channels of the four stages; each halves height and width. */
const STAGES = [24, 48, 96, 160] as const;
/** Width of the features that say how a picture is drawn: mean and deviation of the first two stages' channels. */
const STYLE = 2 * (STAGES[0] + STAGES[1]);

export interface TracedJudge {
  readonly params: ParamsRoot;
  /** [B, 128], of length 1: what a picture shows. */
  readonly identity: Tensor;
  /** [B, 144]: how it is drawn, as statistics of colours, edges and textures. */
  readonly style: Tensor;
}

/** Traces the judge on an input `image` [B, 3, 40, 40] in [−1, 1]. */
export function traceJudge(): TracedJudge {
  const params = createParams();
  let h = input("image", [batch, judgeShape.channels, judgeShape.height, judgeShape.width]);
  const statistics: Tensor[] = [];
  for (const [i, width] of STAGES.entries()) {
    const p = params.at(`stages.${i}`);
    h = conv2d(p.at("down"), h, width, i === 0 ? 5 : 3, { stride: 2, padding: i === 0 ? 2 : 1 });
    // The first stage keeps its scale, which says how strong colours and edges are.
    h = (i === 0 ? h : groupNorm(p.at("norm"), h, 8, 1e-5)).relu();
    if (i > 0) {
      const inner = groupNorm(p.at("inner_norm"), conv2d(p.at("inner"), h, width, 3), 8, 1e-5);
      h = h.add(inner.relu());
    }
    if (i < 2) statistics.push(h.mean([2, 3]), h.variance([2, 3]).add(1e-6).sqrt());
  }
  const places = h.size(1) * h.size(2) * h.size(3);
  const projected = linear(params.at("features"), h.reshape([batch, places]), IDENTITY); // [B, 128]
  return { params, identity: normalized(projected), style: concat(statistics, 1) };
}

/** Rows of length 1. */
export function normalized(x: Tensor): Tensor {
  return x.div(x.square().sum(-1, true).add(1e-8).sqrt());
}

/** What the judge sees in pictures. */
export interface Judged {
  readonly identity: Features;
  readonly style: Features;
}

export interface Judge {
  /** @param pixels [count, 40, 40, 3] */
  look(pixels: Uint8Array): Promise<Judged>;
  dispose(): Promise<void>;
}

/** Pictures in one run of the network. */
const RUN = 100;

/** Opens the judge on weights by their checkpoint keys. */
export async function openJudge(
  backend: Backend,
  weights: Readonly<Record<string, NdArray>>,
): Promise<Judge> {
  const { identity, style } = traceJudge();
  const program = await backend.compile(graphOf({ identity, style }), {
    weights: (name) => weights[name] && { kind: "array", array: weights[name] },
  });
  const bytes = judgeShape.height * judgeShape.width * judgeShape.channels;
  return {
    async look(pixels) {
      const count = pixels.length / bytes;
      const seen = { identity: featuresOf(count, IDENTITY), style: featuresOf(count, STYLE) };
      for (let from = 0; from < count; from += RUN) {
        const some = pixels.subarray(from * bytes, (from + RUN) * bytes);
        const result = await program.run({ image: valuesOf(some, judgeShape) });
        for (const [name, { width, values }] of Object.entries(seen)) {
          values.set(result[name]!.data as Float32Array, from * width);
        }
      }
      return seen;
    },
    dispose: () => program.dispose(),
  };
}

function featuresOf(count: number, width: number) {
  return { count, width, values: new Float32Array(count * width) };
}
