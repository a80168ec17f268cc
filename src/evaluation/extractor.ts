/**
 * A small convolutional network whose features compare sets of pictures. It is trained to classify the data
 * set or, without classes, keeps its random initial weights, whose features capture texture and shape well
 * enough to rank models (Naeem et al., 2020). So nothing has to be downloaded, but its distances are
 * comparable only with each other.
 */
import { arrayWeights } from "../engine/runtime/stored-weight.ts";
import type { PictureShape } from "../pictures/picture.ts";
import { valuesOf } from "../pictures/picture.ts";
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { conv2d } from "../nn/convolutions.ts";
import { groupNorm } from "../nn/norm.ts";
import { linear } from "../nn/linear.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";
import type { Features } from "./distances.ts";

const featureWidth = 128;
const firstWidth = 32;
/** Positions along a side at which the last layer sees whole objects. */
const fewPlaces = 8;

export interface ExtractorConfig {
  readonly shape: PictureShape;
  /** The number of classes that it predicts; absent if it predicts none. */
  readonly classes: number | undefined;
}

export interface TracedExtractor {
  readonly params: ParamsRoot;
  /** [B, featureWidth] */
  readonly features: Tensor;
  /** [B, classes] */
  readonly logits: Tensor | undefined;
}

/** Traces the extractor on an input `image` [B, C, H, W] in [−1, 1]. */
export function traceExtractor({ shape, classes }: ExtractorConfig): TracedExtractor {
  const params = createParams();
  const image = input("image", [batch, shape.channels, shape.height, shape.width]);
  let h = layer("conv_in", image, firstWidth, 1); // [B, 32, H, W]
  for (let i = 0; Math.min(h.size(2), h.size(3)) > fewPlaces; i++) {
    h = layer(`down.${i}`, h, Math.min(featureWidth, 2 * h.size(1)), 2); // [B, 64, H/2, W/2], [B, 128, H/4, W/4] …
  }
  const features = layer("conv_out", h, featureWidth, 1).mean([2, 3]); // [B, 128]
  const logits = classes === undefined ? undefined : linear(params.at("head"), features, classes);
  return { params, features, logits };

  function layer(name: string, x: Tensor, width: number, stride: number): Tensor {
    const p = params.at(name);
    const convolved = conv2d(p.at("conv"), x, width, 3, { stride });
    return groupNorm(p.at("norm"), convolved, 8, 1e-5).relu();
  }
}

/** The features and predictions of pictures. */
export interface Extracted {
  readonly features: Features;
  /** The most likely class of each picture, if the extractor predicts classes. */
  readonly classes: readonly number[] | undefined;
}

export interface Extractor {
  /** @param pixels [count, height, width, channels] in the shape of the config */
  extractFeatures(pixels: Uint8Array): Promise<Extracted>;
  dispose(): Promise<void>;
}

/** Pictures per run. */
const RUN = 200;

export async function openExtractor(
  backend: Backend,
  config: ExtractorConfig,
  weights: Readonly<Record<string, NdArray>>,
): Promise<Extractor> {
  const { shape, classes } = config;
  const { features, logits } = traceExtractor(config);
  const program = await backend.compile(graphOf({ features, ...(logits && { logits }) }), {
    weights: arrayWeights(weights),
  });
  const bytes = shape.height * shape.width * shape.channels;
  return {
    async extractFeatures(pixels) {
      const count = pixels.length / bytes;
      const values = new Float32Array(count * featureWidth);
      const guesses: number[] = [];
      for (let from = 0; from < count; from += RUN) {
        const some = pixels.subarray(from * bytes, (from + RUN) * bytes);
        const seen = await program.run({ image: valuesOf(some, shape) });
        values.set(seen["features"]!.data as Float32Array, from * featureWidth);
        if (classes !== undefined) guesses.push(...likeliest(seen["logits"]!, classes));
      }
      return {
        features: { count, width: featureWidth, values },
        classes: classes === undefined ? undefined : guesses,
      };
    },
    dispose: () => program.dispose(),
  };
}

function likeliest({ data, shape }: NdArray, classes: number): number[] {
  return Array.from({ length: shape[0]! }, (_, i) => {
    const row = (data as Float32Array).subarray(i * classes, (i + 1) * classes);
    return row.reduce((best, value, k) => (value > row[best]! ? k : best), 0);
  });
}
