/**
 * A small convolutional network whose features compare sets of pictures. It is trained to classify the data
 * set or, without classes, keeps its random initial weights, whose features capture texture and shape well
 * enough to rank models (Naeem et al., 2020). So nothing has to be downloaded, but its distances are
 * comparable only with each other.
 */
import { arrayWeights } from "../engine/runtime/stored-weight.ts";
import { type PictureShape, valuesOf } from "../pictures/picture.ts";
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { type NdArray, toNumbers } from "../engine/arrays/ndarray.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { conv2d } from "../nn/convolutions.ts";
import { groupNorm } from "../nn/norm.ts";
import { linear } from "../nn/linear.ts";
import { createParams, type Params, type ParamsRoot } from "../nn/params.ts";
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

/** A network that computes features of pictures: of an input `image` [B, C, H, W] in [−1, 1]. */
export interface TracedExtractor {
  readonly shape: PictureShape;
  readonly params: ParamsRoot;
  /** [B, width] */
  readonly features: Tensor;
  /** [B, classes] */
  readonly logits?: Tensor | undefined;
}

export function traceExtractor({ shape, classes }: ExtractorConfig): TracedExtractor {
  const params = createParams();
  const features = featureMaps(params, imageOf(shape)).at(-1)!.mean([2, 3]); // [B, 128]
  const logits = classes === undefined ? undefined : linear(params.at("head"), features, classes);
  return { shape, params, features, logits };
}

/**
 * The outputs of the extractor's layers on pictures [B, C, H, W] in [−1, 1]: [B, 32, H, W], [B, 64, H/2, W/2],
 * [B, 128, H/4, W/4] … and the last of these once more convolved.
 *
 * @param halvings how often the resolution is halved; until the shorter side has 8 places unless given
 */
export function featureMaps(params: Params, image: Tensor, halvings?: number): readonly Tensor[] {
  const layer = (name: string, x: Tensor, width: number, stride: number) => {
    const p = params.at(name);
    const convolved = conv2d(p.at("conv"), x, width, 3, { stride });
    return groupNorm(p.at("norm"), convolved, 8, 1e-5).relu();
  };
  let h = layer("conv_in", image, firstWidth, 1);
  const maps = [h];
  const isSmall = (x: Tensor) => Math.min(x.size(2), x.size(3)) <= fewPlaces;
  for (let i = 0; halvings === undefined ? !isSmall(h) : i < halvings; i++) {
    h = layer(`down.${i}`, h, Math.min(featureWidth, 2 * h.size(1)), 2);
    maps.push(h);
  }
  return [...maps, layer("conv_out", h, featureWidth, 1)];
}

/** The input of an extractor. */
export function imageOf({ channels, height, width }: PictureShape): Tensor {
  return input("image", [batch, channels, height, width]);
}

export interface Extractor {
  /**
   * The features of pictures, and the most likely class of each if the extractor predicts classes.
   *
   * @param pixels [count, height, width, channels] in the extractor's shape
   */
  extractFeatures(pixels: Uint8Array): Promise<{
    readonly features: Features;
    readonly classes: readonly number[] | undefined;
  }>;
  dispose(): Promise<void>;
}

/** Pictures per run. */
const RUN = 200;

/** Compiles an extractor with weights by their checkpoint keys. */
export async function openExtractor(
  backend: Backend,
  { shape, features, logits }: TracedExtractor,
  weights: Readonly<Record<string, NdArray>>,
): Promise<Extractor> {
  const graph = graphOf({ features, ...(logits && { classes: logits.argmax(-1) }) });
  const program = await backend.compile(graph, { weights: arrayWeights(weights) });
  const bytes = shape.height * shape.width * shape.channels;
  const width = features.size(1);
  return {
    async extractFeatures(pixels) {
      const count = pixels.length / bytes;
      const values = new Float32Array(count * width);
      const guesses: number[] = [];
      for (let from = 0; from < count; from += RUN) {
        const some = pixels.subarray(from * bytes, (from + RUN) * bytes);
        const { features: found, classes } = await program.run({ image: valuesOf(some, shape) });
        values.set(found!.data as Float32Array, from * width);
        if (classes) guesses.push(...toNumbers(classes));
      }
      return { features: { count, width, values }, classes: logits && guesses };
    },
    dispose: () => program.dispose(),
  };
}
