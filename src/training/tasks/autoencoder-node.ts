/**
 * Training a small autoencoder (Rombach et al., 2022) or a small VQGAN (Rampas et al., 2022), which turn pictures into latents
 * or codes and back, on the squared error of pixels alone, without an adversary.
 */
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { join } from "node:path";
import { type Picture, picturesOf, valuesOf } from "../../pictures/picture.ts";
import { pictureGrid, sampleScale } from "../../pictures/grid.ts";
import { type Batch, takeBatches } from "../../data/loading/batch-reader.ts";
import { openLoader } from "../../data/loading/loader-node.ts";
import { input } from "../../engine/graph/functional.ts";
import { countElements, countMultiplyAdds } from "../../engine/passes/cost.ts";
import { type Graph, graphOf } from "../../engine/graph/graph.ts";
import { castWeights, type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../../engine/random/random.ts";
import { batch, resolve } from "../../engine/graph/shape.ts";
import { recordOf } from "../../engine/records.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { codecFolders } from "../../models/coders/image-codec-node.ts";
import { writeJson } from "../../weights/sources/atomic-node.ts";
import { writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { type AutoencoderTrainingConfig, pictureShape, trainingData } from "../config/config.ts";
import type { Measures, Trained } from "../loop.ts";
import type { FolderTask, TaskPlan, TrainContext } from "../run/train-node.ts";
import type { Arrays } from "../step.ts";
import { requireWholeLatents } from "./checks.ts";
import { drawnWeights } from "./denoiser.ts";
import { readInitialWeights } from "./initial-weights-node.ts";
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
import {
  codebookKey,
  decodeCodes,
  decodeQuantized,
  diffusersCodebook,
  diffusersVQGANFields,
  encodeToCodes,
  statisticsKeys,
  straightThrough,
  type VQGANConfig,
} from "../../models/coders/vqgan.ts";
import { createParams, type ParamsRoot } from "../../nn/params.ts";
import { createFolder } from "../../weights/sources/system-error-node.ts";

export function autoencoderPlan(given: AutoencoderTrainingConfig, context: TrainContext): TaskPlan {
  // The reconstruction is always measured, on the training's own pictures if there are no others.
  const config = { ...given, validation: { ...given.validation, own: true } };
  return {
    config,
    recorded: given,
    task: () => autoencoderTask(given, context),
    close: () => Promise.resolve(),
  };
}

/** The number of batches of training pictures from which statistics are gathered. */
const GATHERED = 8;

async function autoencoderTask(
  config: AutoencoderTrainingConfig,
  { backend, out }: TrainContext,
): Promise<FolderTask> {
  const { seed, training } = config;
  const shape = pictureShape(config);
  const autoencoder = configuredAutoencoder(config.autoencoder, shape.channels);
  requireWholeLatents(shape, autoencoder.coder, "the autoencoder", ", or fewer levels");
  const images = input("images", [batch, shape.channels, shape.height, shape.width]);
  const { loss, params, noise } = autoencoder.objective(images);
  const trained = recordOf(params.declared.keys(), (name) => params.declared.get(name)!.tensor);
  const { from } = training;
  const { publishedName } = autoencoder;
  const file = join(codecFolders[autoencoder.kind], weightsFile);
  const read = from
    ? await readInitialWeights(params, from, { file, keyOf: publishedName })
    : drawnWeights(params, fork(randomKey(seed), "weights"), undefined);
  // Pictures of the training set, the same each time.
  const first = { data: trainingData(config), shape, batch: training.batch, seed: 0, from: 0 };
  const shown = await takeBatches(await openLoader(first), GATHERED);
  const measured = measuredAutoencoder(autoencoder, images, shown, config, backend);
  return {
    kind: "autoencoder",
    loss,
    trained,
    initial: () => read(Object.keys(trained)),
    fixed: () => undefined,
    parameters: countElements(Object.values(trained)),
    multiplyAdds: () => countMultiplyAdds(graphOf({ loss }), 1),
    inputs({ pixels }, key) {
      const values = valuesOf(pixels, shape);
      if (!noise) return { images: values };
      const latents = resolve(noise.shape, values.shape[0]);
      return { images: values, noise: normal(fork(key, "noise"), latents) };
    },
    async validator(loader) {
      const batches = await takeBatches(loader, config.validation.batches);
      return async (averages) =>
        measures(await measured.reconstruct(averages, batches), autoencoder);
    },
    async sample(_trained, averages) {
      const [made] = await measured.reconstruct(averages, shown.slice(0, 1));
      const truth = picturesOf(valuesOf(shown[0]!.pixels, shape));
      return comparison(truth, picturesOf(made!.pixels), config.samples.pictures);
    },
    async write(length, averages) {
      const folder = join(out, codecFolders[autoencoder.kind]);
      const complete = await measured.whole(averages);
      await writeAutoencoder(folder, autoencoder, complete, length, config.checkpoint.weights);
    },
  };
}

/** An autoencoder with averaged weights, completed by statistics of pictures, which no training step learns. */
function measuredAutoencoder(
  autoencoder: Autoencoder,
  images: Tensor,
  shown: readonly Batch[],
  config: AutoencoderTrainingConfig,
  backend: Backend,
) {
  const { threads } = config.training;
  const pixelsOf = ({ pixels }: Batch) => valuesOf(pixels, pictureShape(config));
  const compile = (graph: Graph, weights: Arrays) =>
    backend.compile(graph, { weights: arrayWeights(weights), ...(threads && { threads }) });
  const whole = async (averages: Arrays): Promise<CompleteAutoencoder> => {
    const program = await compile(graphOf(autoencoder.gathered(images)), averages);
    const gathered: Record<string, NdArray>[] = [];
    for (const each of shown) gathered.push({ ...(await program.run({ images: pixelsOf(each) })) });
    await program.dispose();
    return autoencoder.whole(averages, gathered);
  };
  const reconstruct = async (averages: Arrays, batches: readonly Batch[]) => {
    const complete = await whole(averages);
    const graph = graphOf(autoencoder.reconstruction(images, complete));
    const program = await compile(graph, complete.weights);
    const made: Reconstructed[] = [];
    for (const each of batches) {
      const { pixels, tokens } = await program.run({ images: pixelsOf(each) });
      made.push({ truth: each.pixels, pixels: pixels!, tokens });
    }
    await program.dispose();
    return made;
  };
  return { whole, reconstruct };
}

async function writeAutoencoder(
  folder: string,
  autoencoder: Autoencoder,
  complete: CompleteAutoencoder,
  trained: Trained,
  dtype: "float32" | "float16",
): Promise<void> {
  await createFolder(folder);
  const stored = Object.entries(complete.weights).map(
    ([name, array]) => [autoencoder.publishedName(name), castWeights(array, dtype)] as const,
  );
  await writeSafetensors(join(folder, weightsFile), stored, [["format", "pt"]]);
  await writeJson(join(folder, "config.json"), { ...autoencoder.fields(complete), trained });
}

/** The name of a model's weights in diffusers. */
const weightsFile = "diffusion_pytorch_model.safetensors";

interface Reconstructed {
  /** The pixels of the pictures, as bytes. */
  readonly truth: Uint8Array;
  /** [B, C, H, W], roughly in [−1, 1]. */
  readonly pixels: NdArray;
  readonly tokens: NdArray | undefined;
}

/** The mean PSNR of reconstructions; for a codebook, also the share of codes in use and their perplexity. */
function measures(made: readonly Reconstructed[], { coder }: Autoencoder): Measures {
  const errors: number[] = [];
  const used = new Map<bigint, number>();
  for (const { truth, pixels, tokens } of made) {
    let at = 0;
    for (const picture of picturesOf(pixels)) {
      const error = picture.pixels.reduce((sum, value) => sum + (value - truth[at++]!) ** 2, 0);
      errors.push(error / picture.pixels.length);
    }
    for (const token of (tokens?.data ?? []) as Iterable<bigint>) {
      used.set(token, (used.get(token) ?? 0) + 1);
    }
  }
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  // The PSNR of a perfect reconstruction would be infinite; it is bounded here.
  const psnr = errors.map((error) => 10 * Math.log10(255 ** 2 / Math.max(error, 1e-6)));
  const reconstruction = { loss: mean(errors) / 127.5 ** 2, psnr: mean(psnr) };
  if (coder.kind === "kl") return reconstruction;
  const all = [...used.values()].reduce((a, b) => a + b, 0);
  const entropy = [...used.values()].reduce((sum, n) => sum - (n / all) * Math.log(n / all), 0);
  return {
    ...reconstruction,
    codebookUse: used.size / coder.config.codebook,
    perplexity: Math.exp(entropy),
  };
}

/** A grid of pictures, each above its reconstruction. */
function comparison(truth: readonly Picture[], made: readonly Picture[], count: number): Picture {
  const shown = Math.min(count, truth.length);
  const columns = Math.min(shown, 12);
  const rows: Picture[] = [];
  const titles: string[] = [];
  // Only full rows, so that each picture stands above its own reconstruction.
  for (let from = 0; from + columns <= shown; from += columns) {
    rows.push(...truth.slice(from, from + columns), ...made.slice(from, from + columns));
    titles.push("pictures", "as reconstructed");
  }
  return pictureGrid(rows, columns, { scale: sampleScale(truth[0]!), titles });
}

interface Autoencoder {
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
interface CompleteAutoencoder {
  readonly weights: Arrays;
  readonly coder: ImageCodec;
}

type Settings = AutoencoderTrainingConfig["autoencoder"];

function configuredAutoencoder(settings: Settings, channels: number): Autoencoder {
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
