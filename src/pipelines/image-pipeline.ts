/**
 * From a request to pictures: words → conditions → noise → steps → decoding. `drawPictures` is the whole way; the rest of
 * the file is how each of its steps is done.
 */
import { combine } from "../diffusion/arrays.ts";
import {
  type Conditions,
  type Denoiser,
  denoiserOf,
  sharedNetwork,
} from "../diffusion/denoiser.ts";
import { guided } from "../diffusion/guidance.ts";
import { keeping } from "../diffusion/inpainting.ts";
import { levelsOfStrength, type NoiseLevel, noiseOfSteps } from "../diffusion/levels.ts";
import { keyedNoise } from "../diffusion/noise.ts";
import { thresholded } from "../diffusion/thresholding.ts";
import { UsageError } from "../engine/errors.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { randomKey } from "../engine/random/random.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { conditionsFor, rememberedEmbeddings } from "./conditions.ts";
import { decodePictures, type Drawing } from "./drawing.ts";
import { givenImage } from "./given-image.ts";
import { skippedLayers } from "./guidance-settings.ts";
import type { ImageModel, RunStage, SamplingProcess } from "./image-model.ts";
import { checkMemory } from "./memory.ts";
import type { DrawnPicture, GenerateRequest, GenerateStep, Pipeline } from "./pipeline.ts";
import { stagePrograms } from "./programs.ts";
import { type Decided, decide, latentSize } from "./settings.ts";
import { stagesOf } from "./stages.ts";
import { drawTokenPictures } from "./token-drawing.ts";

export interface PipelineOptions {
  /** Bytes that drawing may take; asked for more, it refuses. Unknown unless given. */
  readonly memory?: number | undefined;
}

/**
 * A pipeline on a model; programs are made when they are first needed, and kept.
 *
 * @throws UsageError when the model draws latents, and there is nothing that makes pictures of them, or lacks
 *   another part
 */
export function imagePipeline(
  model: ImageModel,
  backend: Backend,
  { memory }: PipelineOptions = {},
): Pipeline {
  const { channels } = model.network;
  if (!model.decoder && channels !== 1 && channels !== 3) {
    throw new UsageError(
      `${model.name} draws latents of ${channels} channels, and brings no autoencoder that makes pictures of them; give Stable Diffusion's as the VAE (--vae), a folder or a .safetensors file.`,
    );
  }
  if (model.lacks !== undefined) throw new UsageError(model.lacks);
  const programs = stagePrograms(backend, memory);
  const stages = stagesOf(model);
  const run: RunStage = programs.run;
  const embed = rememberedEmbeddings(model, run);
  const decideAll = (request: GenerateRequest): Decided => {
    const decided = decide(request, model);
    if (memory !== undefined) checkMemory(decided, model, stages, memory);
    return decided;
  };
  return {
    name: model.name,
    settings: (request) => decideAll(request).settings,
    generate(request) {
      const drawing = { model, decideAll, stages, run, embed };
      const { process } = model;
      return process.kind === "tokens"
        ? drawTokenPictures(request, process, drawing)
        : drawPictures(request, process, drawing);
    },
    async dispose() {
      await programs.dispose();
      await model.close();
    },
  };
}

async function* drawPictures(
  request: GenerateRequest,
  process: SamplingProcess,
  drawing: Drawing,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { signal } = request;
  const { network } = drawing.model;
  const decided = drawing.decideAll(request);
  const { size, seed, count, sampler, steps, shift, strength } = decided.settings;
  const seeds = Array.from({ length: count }, (_, i) => seed + i);

  const [height, width] = latentSize(size, drawing.model);
  const schedule = process.levels(steps, { size: [height, width], shift });
  const levels = strength === undefined ? schedule : levelsOfStrength(schedule, steps, strength);
  const noise = keyedNoise(seeds.map((each) => randomKey(each)));
  const shape = [count, network.channels, height, width] as const;
  const [first] = levels as [NoiseLevel];
  const fresh = noise("start", shape);
  const given = await givenImage(request, shape, drawing);
  const start = given
    ? combine([first.alpha, given.latents], [first.sigma, fresh])
    : combine([process.start(first), fresh]);
  const drawn = await denoiserFor(decided, [height, width], levels, process, drawing, signal);
  const denoise = given?.mask ? keeping(drawn, given.latents, given.mask) : drawn;
  const decode = async (latents: NdArray) => {
    const pictures = await decodePictures(latents, drawing, signal);
    return given ? pictures.map(given.finish) : pictures;
  };

  const sample = process.samplerNamed(sampler, steps);
  const sampling = sample(denoise, start, levels, { noise, signal });
  for (;;) {
    const next = await sampling.next();
    if (next.done) {
      const pictures = await decode(next.value);
      return pictures.map((picture, i) => ({ ...picture, seed: seeds[i]! }));
    }
    const { step, x0 } = next.value;
    yield { step, steps: levels.length - 1, preview: () => decode(x0) };
  }
}

/** Told what to draw, guided away from what to avoid where guidance is asked for, and kept in range. */
async function denoiserFor(
  { settings, told, avoided }: Decided,
  size: readonly [height: number, width: number],
  levels: readonly NoiseLevel[],
  { parameterization, threshold }: SamplingProcess,
  { model, stages, run, embed }: Drawing,
  signal: AbortSignal | undefined,
): Promise<Denoiser> {
  const { guidance: scale, guidedChannels, count, steps, skipLayers } = settings;
  const asked = scale === 1 ? [told] : [told, avoided];
  const [wanted, free = wanted] = (await conditionsFor(asked, count, model, embed)) as [
    Conditions,
    Conditions?,
  ];

  const skippable = skippedLayers(settings);
  const stage = stages.network(size, skippable);
  const network = sharedNetwork(
    async (inputs) => (await run(stage, inputs, signal ? { signal } : {}))["output"]!,
  );
  const under = (conditions: Conditions, skips = 0) => {
    const skip = ndarray("bool", [count], new Array<number>(count).fill(skips));
    const inputs = skippable.length > 0 ? { ...conditions, skip } : conditions;
    return denoiserOf(network(inputs), parameterization, model.network);
  };
  const { guidanceInterval: interval, rescale: amount } = settings;
  const denoise = guided(under(wanted), under(free), {
    scale,
    channels: guidedChannels,
    interval: interval && { above: interval[0], upTo: interval[1] },
    rescale: amount === undefined ? undefined : { amount, parameterization },
    skipLayers: skipLayers && {
      scale: skipLayers.scale,
      weakened: under(wanted, 1),
      interval: noiseOfSteps(levels, steps, skipLayers),
    },
  });
  return threshold ? thresholded(denoise, threshold) : denoise;
}
