/** What a training makes of the two kinds of autoencoders: loss, what is gathered beside it, and the files that come out. */
import { input } from "../../engine/graph/functional.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  type AutoencoderKLConfig,
  autoencoderKLFields,
  decodeLatents,
  encodeImages,
  latentFactor,
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

type Arrays = Readonly<Record<string, NdArray>>;

export interface Autoencoder {
  readonly kind: ImageCodec["kind"];
  readonly coder: ImageCodec;
  /** Of images [B, C, H, W] in [−1, 1]; `noise` is an input of the loss, where it has one. */
  objective(images: Tensor): {
    readonly loss: Tensor;
    readonly params: ParamsRoot;
    readonly noise: Tensor | undefined;
  };
  /** What of a batch is gathered, for `whole`. */
  gathered(images: Tensor): Readonly<Record<string, Tensor>>;
  whole(averages: Arrays, gathered: readonly Arrays[]): Told;
  /** `pixels` [B, C, H, W] about in [−1, 1], and `tokens` [B, h, w] where there are some. */
  reconstruction(images: Tensor, told: Told): Readonly<Record<string, Tensor>>;
  /** Of a weight, in the layout of diffusers. */
  readonly publishedName: (name: string) => string;
  /** The config.json beside them. */
  fields(told: Told): Readonly<Record<string, unknown>>;
}

/** All that an autoencoder is. */
export interface Told {
  readonly weights: Arrays;
  readonly coder: ImageCodec;
}

type Settings = AutoencoderTrainingConfig["autoencoder"];

export function configuredAutoencoder(settings: Settings, channels: number): Autoencoder {
  return settings.kind === "vq" ? tokenizer(settings, channels) : gaussian(settings, channels);
}

function tokenizer(
  { kind, ...sizes }: Extract<Settings, { kind: "vq" }>,
  channels: number,
): Autoencoder {
  // Latents are normalized to a variance of 1 already.
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
      // In [0, 1] errors are half as large as in [−1, 1].
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

/** How much the distance of latents and codes counts beside the error of a pixel. */
const codebookWeight = 0.1;

function gaussian(
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
      // To a standard normal distribution (Kingma & Welling, 2014, appendix B), a number.
      const distance = mean.square().add(logVariance.exp()).sub(logVariance).sub(1).mul(0.5).mean();
      return { loss: error.add(distance.mul(divergence)), params, noise };
    },
    gathered(images) {
      const posterior = encodeImages(createParams(), images, config);
      const { mean, logVariance } = posterior;
      // Of a sample: the variance of the means, and the mean of the variances.
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

/** Of arrays of one number a channel, [1, C, 1, 1] → [C]. */
function meanOf(arrays: readonly NdArray[]): NdArray<"float32"> {
  const sum = new Float32Array(arrays[0]!.data.length);
  for (const { data } of arrays) {
    for (let i = 0; i < sum.length; i++) sum[i]! += Number(data[i]) / arrays.length;
  }
  return ndarray("float32", [sum.length], sum);
}
