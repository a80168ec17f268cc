/** The two kinds of autoencoders in training: loss, statistics gathered from pictures, and published files. */
import { input } from "../../engine/graph/functional.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  type AutoencoderKLConfig,
  autoencoderKLFields,
  latentFactor,
} from "../../models/coders/autoencoder-kl-config.ts";
import {
  decodeLatents,
  encodeImages,
  samplePosterior,
} from "../../models/coders/autoencoder-kl.ts";
import { type ImageCodec, unitRange } from "../../models/coders/image-codec.ts";
import { diffusersVQGANFields } from "../../models/coders/vqgan-folder.ts";
import {
  codebookKey,
  decodeQuantized,
  decodeCodes,
  diffusersCodebook,
  encodeToCodes,
  statisticsKeys,
  straightThrough,
  type VQGANConfig,
} from "../../models/coders/vqgan.ts";
import { createParams, type ParamsRoot } from "../../nn/params.ts";
import type { AutoencoderTrainingConfig } from "../config/config.ts";
import type { Arrays } from "../step.ts";

export interface Autoencoder {
  readonly kind: ImageCodec["kind"];
  readonly coder: ImageCodec;
  /** Traces the loss of images [B, C, H, W] in [−1, 1]. `noise` is an input of losses that sample latents. */
  objective(images: Tensor): {
    readonly loss: Tensor;
    readonly params: ParamsRoot;
    readonly noise: Tensor | undefined;
  };
  /** The statistics of a batch, for `whole`. */
  gathered(images: Tensor): Readonly<Record<string, Tensor>>;
  /** Completes averaged weights by the statistics of several batches. */
  whole(averages: Arrays, gathered: readonly Arrays[]): CompleteAutoencoder;
  /** `pixels` [B, C, H, W], roughly in [−1, 1], and the codes `tokens` [B, h, w] of a VQGAN. */
  reconstruction(images: Tensor, complete: CompleteAutoencoder): Readonly<Record<string, Tensor>>;
  /** The name of a weight in the layout of diffusers. */
  readonly publishedName: (name: string) => string;
  /** The fields of the config.json beside the weights. */
  fields(complete: CompleteAutoencoder): Readonly<Record<string, unknown>>;
}

/** An autoencoder with everything that drawing with it needs. */
export interface CompleteAutoencoder {
  readonly weights: Arrays;
  readonly coder: ImageCodec;
}

type Settings = AutoencoderTrainingConfig["autoencoder"];

export function configuredAutoencoder(settings: Settings, channels: number): Autoencoder {
  return settings.kind === "vq"
    ? vqAutoencoder(settings, channels)
    : klAutoencoder(settings, channels);
}

function vqAutoencoder(
  { kind, ...sizes }: Extract<Settings, { kind: "vq" }>,
  channels: number,
): Autoencoder {
  // Latents already have a variance of 1.
  const config: VQGANConfig = { ...sizes, channels, scale: 1 };
  const coder = { kind, config };
  return {
    kind,
    coder,
    objective(images) {
      const params = createParams();
      const truth = unitRange(images);
      const encoded = encodeToCodes(params, truth, config, "batch");
      const made = decodeQuantized(params, straightThrough(encoded), config);
      // Pixels are in [0, 1] here, where errors are half as large as in [−1, 1].
      const error = made.sub(truth).square().mean().mul(4);
      return { loss: error.add(encoded.loss.mul(codebookWeight)), params, noise: undefined };
    },
    gathered: (images) =>
      encodeToCodes(createParams(), unitRange(images), config, "batch").statistics,
    whole(averages, gathered) {
      const { mean, variance } = statisticsKeys(config);
      const statistics = {
        [mean]: meanOf(gathered.map((each) => each["mean"]!)),
        [variance]: meanOf(gathered.map((each) => each["variance"]!)),
      };
      return { weights: { ...averages, ...statistics }, coder };
    },
    reconstruction(images) {
      const params = createParams();
      const tokens = encodeToCodes(params, unitRange(images), config).indices;
      return { tokens, pixels: decodeCodes(params, tokens, config).mul(2).sub(1) };
    },
    publishedName: (name) => (name === codebookKey ? diffusersCodebook : name),
    fields: () => diffusersVQGANFields(config),
  };
}

/** The weight of the distance between latents and codes, relative to the error of a pixel. */
const codebookWeight = 0.1;

function klAutoencoder(
  { kind, divergence, ...sizes }: Extract<Settings, { kind: "kl" }>,
  channels: number,
): Autoencoder {
  const none = sizes.widths.map(() => false);
  const config: AutoencoderKLConfig = {
    ...sizes,
    inputs: channels,
    outputs: channels,
    activation: "silu",
    encoderAttention: none,
    decoderAttention: none,
    quantConv: true,
    postQuantConv: true,
    scale: 1,
    shift: 0,
  };
  return {
    kind,
    coder: { kind, config },
    objective(images) {
      const params = createParams();
      const posterior = encodeImages(params, images, config);
      const { mean, logVariance } = posterior;
      const [height, width] = [images.size(2), images.size(3)].map(
        (side) => side / latentFactor(config),
      ) as [number, number];
      const noise = input("noise", [batch, config.latentChannels, height, width]);
      const made = decodeLatents(params, samplePosterior(posterior, noise), config);
      const error = made.sub(images).square().mean();
      // The divergence from a standard normal distribution (Kingma & Welling, 2014, appendix B), per value.
      const distance = mean.square().add(logVariance.exp()).sub(logVariance).sub(1).mul(0.5).mean();
      return { loss: error.add(distance.mul(divergence)), params, noise };
    },
    gathered(images) {
      const posterior = encodeImages(createParams(), images, config);
      const { mean, logVariance } = posterior;
      // The second moment of a sample is that of the means plus the mean of the variances.
      return { mean: mean.mean(), square: mean.square().add(logVariance.exp()).mean() };
    },
    whole(averages, gathered) {
      const of = (name: string) => Number(meanOf(gathered.map((each) => each[name]!)).data[0]);
      const shift = of("mean");
      const scale = 1 / Math.sqrt(of("square") - shift ** 2);
      return { weights: averages, coder: { kind, config: { ...config, scale, shift } } };
    },
    reconstruction(images) {
      const params = createParams();
      return { pixels: decodeLatents(params, encodeImages(params, images, config).mean, config) };
    },
    publishedName: (name) => name,
    fields: ({ coder }) => autoencoderKLFields(coder.config as AutoencoderKLConfig),
  };
}

/** The mean of arrays with one number for each channel, [1, C, 1, 1] → [C]. */
function meanOf(arrays: readonly NdArray[]): NdArray<"float32"> {
  const sum = new Float32Array(arrays[0]!.data.length);
  for (const { data } of arrays) {
    for (let i = 0; i < sum.length; i++) sum[i]! += Number(data[i]) / arrays.length;
  }
  return ndarray("float32", [sum.length], sum);
}
