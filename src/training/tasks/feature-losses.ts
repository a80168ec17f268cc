/**
 * Losses on the features of a fixed network, beside the diffusion loss: how the predicted clean picture looks (perceptual), and
 * what the blocks of the transformer hold (alignment). The network is the extractor of evaluation/, so nothing is downloaded.
 */
import { UsageError } from "../../engine/errors.ts";
import { batch, formatShape, sameShape } from "../../engine/graph/shape.ts";
import { input } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { fork, type RandomKey, randomKey } from "../../engine/random/random.ts";
import { featureMaps } from "../../evaluation/extractor.ts";
import type { NetworkConfig } from "../../models/network.ts";
import { conv2d } from "../../nn/convolutions.ts";
import { createParams, initialize, type Params, type ParamsRoot } from "../../nn/params.ts";
import type { TrainingConfig } from "../config/config.ts";
import type { FeatureSettings } from "../config/further-settings.ts";
import type { Arrays } from "../step.ts";

/** Added to squared lengths and variances before they divide. */
const EPSILON = 1e-6;

/** The clean pictures of a batch, and what a network makes of their noisy forms. */
export interface Estimate {
  /** [B, C, H, W] */
  readonly clean: Tensor;
  /** The clean pictures that the network predicts, of the same shape. */
  readonly predicted: Tensor;
  /** The share of the clean picture in the network's input, [B, 1, 1, 1]. At high noise a good prediction is blurred. */
  readonly signal: Tensor;
  /** The tensors of the network that `taps` names. */
  readonly tapped: Readonly<Record<string, Tensor>>;
}

export interface FeatureLosses {
  /** The network's tensors that the losses read, for `traceNetwork`. */
  readonly taps: readonly string[];
  /** The weighted sum of the losses, [B]. */
  loss(estimate: Estimate): Tensor;
  /** The extractor's weights, which are not trained. */
  readonly fixed: Arrays;
  /** Weights that are trained beside the network's, and are not part of the model. */
  readonly projection: ParamsRoot;
}

/**
 * The losses on features that a config asks for.
 *
 * @param extractor the weights of the file that it names
 * @throws UsageError when the network sees no pictures, or the file was not read
 */
export function configuredFeatures(
  {
    training,
    latents,
    diffusion,
    seed,
  }: Pick<TrainingConfig, "training" | "latents" | "diffusion" | "seed">,
  network: NetworkConfig,
  extractor: Arrays | undefined,
): FeatureLosses | undefined {
  if (!training.features) return undefined;
  if (latents || diffusion.process === "tokens") {
    throw new UsageError(
      "training.features compares pictures, but the network sees latents or codes of pictures; leave features out, or train on pixels.",
    );
  }
  if (training.features.extractor !== undefined && !extractor) {
    throw new UsageError(
      `training.features.extractor names the file ${training.features.extractor}, which trainModel does not read; pass its weights as the option extractor instead.`,
    );
  }
  return featureLosses(training.features, network, fork(randomKey(seed), "extractor"), extractor);
}

/**
 * Prepares the losses that `training.features` asks for.
 *
 * @param weights the extractor's, as `patchwise compare` keeps them; drawn from `key` if absent, which still captures
 * texture and shape (Naeem et al., 2020)
 * @throws UsageError when network, pictures and extractor do not fit each other
 */
function featureLosses(
  { perceptual, alignment, block }: FeatureSettings,
  { size, channels }: Pick<NetworkConfig, "size" | "channels">,
  key: RandomKey,
  weights: Arrays | undefined,
): FeatureLosses {
  const [extractor, projection] = [createParams(), createParams()];
  const layers = weights && Object.keys(weights).filter((name) => name.endsWith(".conv.weight"));
  // Beside the layers between them, the extractor has a first and a last one.
  const halvings = layers && layers.length - 2;
  const features = (image: Tensor) => featureMaps(extractor.at("extractor"), image, halvings);
  features(input("image", [batch, channels, ...size]));
  const tap = `blocks.${block}.output`;
  return {
    taps: alignment > 0 ? [tap] : [],
    loss({ clean, predicted, signal, tapped }) {
      const target = features(clean);
      const terms: Tensor[] = [];
      if (perceptual > 0) {
        const distance = perceptualDistance(features(predicted), target);
        terms.push(distance.mul(signal.reshape(distance.shape)).mul(perceptual));
      }
      if (alignment > 0) {
        const projected = projection.at("alignment");
        terms.push(misalignment(projected, tapped[tap]!, target).mul(alignment));
      }
      return terms.reduce((sum, term) => sum.add(term));
    },
    fixed: weights ? fitting(weights, extractor) : initialize(extractor, key),
    projection,
  };
}

/** Gives read weights the names that the extractor has in a training. */
function fitting(weights: Arrays, { declared }: ParamsRoot): Arrays {
  return Object.fromEntries(
    [...declared].map(([key, { tensor }]) => {
      const name = key.slice("extractor.".length);
      const found = weights[name];
      if (found && sameShape(found.shape, tensor.shape)) return [key, found];
      throw new UsageError(
        `The extractor's ${name} is ${found ? formatShape(found.shape) : "missing"}, but the pictures need ${formatShape(tensor.shape)}; give the extractor of a comparison on pictures with as many channels.`,
      );
    }),
  );
}

/**
 * The distance [B] of two pictures in the maps of an extractor: that of their unit-length features, summed over channels and
 * averaged over places and layers (LPIPS; Zhang et al., 2018, eq. 1, with equal weights).
 */
export function perceptualDistance(a: readonly Tensor[], b: readonly Tensor[]): Tensor {
  const distances = a.map((map, layer) =>
    ofUnitLength(map, 1).sub(ofUnitLength(b[layer]!, 1)).square().sum(1).mean([1, 2]),
  );
  return distances.reduce((sum, each) => sum.add(each)).div(distances.length);
}

/**
 * One minus the cosine [B] between projected tokens and the features at their places (REPA; Yu et al., 2025, eq. 8). The
 * projection is a convolution and the features are standardised over places, as in iREPA (Singh et al., 2025).
 *
 * @param tokens [B, N, D], one for each patch
 * @param maps of the extractor; the one with N places is used
 */
function misalignment(p: Params, tokens: Tensor, maps: readonly Tensor[]): Tensor {
  const [count, width] = [tokens.size(1), tokens.size(2)];
  const map = maps.findLast((each) => each.size(2) * each.size(3) === count);
  if (!map) {
    const offered = [...new Set(maps.map((each) => each.size(2) * each.size(3)))];
    throw new UsageError(
      `training.features.alignment compares ${count} tokens of a block with maps of ${offered.join(", ")} places; choose a patch size that gives one of these numbers, a block without other tokens, or an alignment of 0.`,
    );
  }
  const [channels, height, columns] = [map.size(1), map.size(2), map.size(3)];
  const grid = tokens.swapAxes(1, 2).reshape([tokens.dim(0), width, height, columns]);
  const projected = conv2d(p.at("conv"), grid, channels, 3);
  const centred = map.sub(map.mean([2, 3], true));
  const target = centred.div(centred.square().mean([2, 3], true).add(EPSILON).sqrt());
  const cosine = ofUnitLength(projected, 1).mul(ofUnitLength(target, 1)).sum(1);
  return cosine.mean([1, 2]).neg().add(1);
}

function ofUnitLength(x: Tensor, axis: number): Tensor {
  return x.div(x.square().sum(axis, true).add(EPSILON).sqrt());
}
