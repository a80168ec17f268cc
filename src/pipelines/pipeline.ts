/**
 * From a request to pictures. `draw` is the whole way from top to bottom: prompt → conditions → noise → steps → pixels; the
 * functions below it are its parts. It is the same for continuous numbers and for discrete tokens, which differ in their
 * `SamplingProcess` only.
 */
import { rowsOf } from "../diffusion/arrays.ts";
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { otherEvents } from "../engine/runtime/other-events.ts";
import { tiledDecode } from "../models/coders/autoencoder-kl.ts";
import { guidesItself, networkInput } from "../models/network.ts";
import { sliceFrames } from "../models/coders/video-chunks.ts";
import { type Clip, clipOfPictures, picturesOfClip } from "../pictures/clip.ts";
import { framesOf, type Picture, picturesOf } from "../pictures/picture.ts";
import { decodeClipLatents } from "./decode-clip.ts";
import { checkComputation, type DrawingProgress } from "./compute.ts";
import {
  cachedEncoder,
  guidable,
  type NetworkContext,
  networksUnder,
} from "./conditioned-networks.ts";
import {
  encodeGivenFrames,
  givesFrames,
  type KeptFrames,
  withoutLastFrame,
} from "./given-frames.ts";
import { encodeGivenImage } from "./given-image.ts";
import { type ImageModel, latentFrames, latentSize, stagesOf } from "./image-model.ts";
import { type InspectOptions, inspectStep, type StepInspection } from "./inspect.ts";
import { mapSteps, type SamplingRun } from "./process.ts";
import { checkFinite, checkMemory, rowsWithin, stagePrograms } from "./programs.ts";
import { encodeReferences } from "./references.ts";
import {
  type GenerateRequest,
  type GenerateSettings,
  type ResolvedRequest,
  resolveRequest,
} from "./settings.ts";
import { type Participant, sharedRuns } from "./shared-runs.ts";

declare global {
  // As `lib.esnext.disposable.d.ts` has it, which apps need not include.
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

/** The state of a generation after a step. */
export interface GenerateStep extends DrawingProgress {
  /** Decodes the current estimate; nothing is computed unless it is called. */
  readonly preview: () => Promise<readonly Picture[]>;
  /**
   * Runs the network once more on what the step began with, and returns what guidance compared and the intermediate tensors asked
   * for. It may be called later, until the pipeline is disposed.
   *
   * @example
   * const { conditional } = await step.inspect({ taps: ["blocks.*.attn.probabilities"] });
   * conditional.taps["blocks.0.attn.probabilities"]; // [count, heads, tokens, tokens], whose rows sum to 1
   * @throws UsageError if a tap does not exist, or the model draws discrete tokens
   */
  readonly inspect: (options?: InspectOptions) => Promise<StepInspection>;
}

/** A picture, or the first frame of a clip. */
export interface DrawnPicture extends Picture {
  /** All frames, if the model draws clips. */
  readonly clip?: Clip | undefined;
  /** The seed with which this picture is drawn again by itself. */
  readonly seed: number;
}

export interface Pipeline {
  /** Name of the model. */
  readonly name: string;
  /**
   * Checks a request and fills in the model's own settings, without drawing.
   *
   * @throws UsageError that names the setting at fault
   */
  settings(request: GenerateRequest): GenerateSettings;
  /**
   * Draws pictures; yields after each step and returns the pictures.
   *
   * @example for await (const { step, steps } of pipeline.generate({ prompt: "a red apple" })) console.log(step, steps);
   * @throws UsageError that names the setting at fault
   */
  generate(request: GenerateRequest): AsyncGenerator<GenerateStep, readonly DrawnPicture[]>;
  /**
   * Frees memory and closes the model's files, once the running step is done. A generation that is not at its end fails, and so does
   * every later one. `await using` calls it.
   */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Runs a generation to its end and returns the pictures.
 *
 * @example const [picture] = await finished(pipeline.generate({ prompt: "a red apple", seed: 7 }));
 */
export async function finished<T>(generation: AsyncGenerator<unknown, T>): Promise<T> {
  for (;;) {
    const next = await generation.next();
    if (next.done) return next.value;
  }
}

export interface PipelineOptions {
  /** Bytes that drawing may take; larger requests fail with an error. Unlimited unless given. */
  readonly memory?: number | undefined;
  /**
   * The number of compiled programs that are kept, one a picture size and part of the model: the least recently used ones are
   * dropped, and compiled anew when they are needed. 8 by default.
   */
  readonly programs?: number | undefined;
  /** The most rows of the network that several generations share a run of; one by itself may have more. 32 by default. */
  readonly sharedRows?: number | undefined;
}

const SHARED_ROWS = 32;

/**
 * A pipeline on a model. Programs are compiled when they are first needed, and cached.
 *
 * @throws UsageError if a part is missing, such as the decoder of a model of latents
 */
export function imagePipeline(
  model: ImageModel,
  backend: Backend,
  { memory, programs: kept, sharedRows = SHARED_ROWS }: PipelineOptions = {},
): Pipeline {
  const { channels } = model.network;
  if (!model.decoder && !model.clipDecoder && channels !== 1 && channels !== 3) {
    throw new UsageError(
      `${model.name} draws latents of ${channels} channels and has no autoencoder to decode them; give Stable Diffusion's as the VAE (--vae), a folder or a .safetensors file.`,
    );
  }
  if (model.missingParts !== undefined) throw new UsageError(model.missingParts);
  const programs = stagePrograms(backend, { memory, kept });
  const stages = stagesOf(model);
  const { run } = programs;
  const resolve = (request: GenerateRequest): ResolvedRequest => {
    const resolved = resolveRequest(request, model);
    checkComputation(resolved.settings.compute, backend.device);
    if (memory !== undefined) checkMemory(resolved, model, stages, memory);
    return resolved;
  };
  const takePart = sharedRuns(run, (stage) => rowsWithin(stage, sharedRows, memory));
  const encode = cachedEncoder(model, run);
  const context = { model, stages, run, takePart, resolve, encode };
  let disposed: Promise<void> | undefined;
  const dispose = () => (disposed ??= programs.dispose().then(() => model.close()));
  return {
    name: model.name,
    settings: (request) => resolve(request).settings,
    generate: (request) => draw(request, context),
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}

/** What all generations of a pipeline share. */
interface GenerationContext extends NetworkContext {
  /** Shares the runs of the network with other generations. */
  readonly takePart: () => Participant;
  readonly resolve: (request: GenerateRequest) => ResolvedRequest;
}

async function* draw(
  request: GenerateRequest,
  context: GenerationContext,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { model } = context;
  const { process } = model;
  const { signal, onProgress } = request;
  const resolved = context.resolve(request);
  const { settings, levels } = resolved;
  const { seed, count } = settings;
  const seeds = Array.from({ length: count }, (_, i) => seed + i);
  const size = latentSize(settings, model);
  const frames = settings.frames === undefined ? undefined : latentFrames(settings.frames, model);
  const [[, ...row]] = networkInput({ ...model.network, frames }, size);
  const shape = [count, ...(row as number[])];

  const kept = frames === undefined ? undefined : yield* keptFrames(request, settings, context);
  const around = kept && (await encodeGivenFrames(kept, shape, context));
  const image = await encodeGivenImage(kept ? {} : request, shape, context);
  const given = around ?? image;
  const references = await encodeReferences(resolved.references, count, context);
  const input = { size, frames, timePerToken: around?.clean !== undefined, references };
  const shared = context.takePart();
  const networks = await networksUnder(resolved, input, { ...context, run: shared.run }, signal);
  const { learnedVariance } = model.network;
  // A network that is told the scale guides itself.
  const guiding = guidesItself(model.network) ? { ...settings, guidance: 1 } : settings;
  const sampled = { seeds, levels, shape, given, learnedVariance, signal };
  const run: SamplingRun = { settings: guiding, ...sampled };
  const decode = async (drawn: NdArray) => {
    if (frames === undefined) {
      const pictures = await decodePictures(drawn, context, signal);
      return image ? pictures.map(image.finish) : pictures;
    }
    const clips = await decodeClips(drawn, context, signal);
    const whole = around ? clips.map(around.finish) : clips;
    return (settings.loop ? whole.map(withoutLastFrame) : whole).map(firstPicture);
  };

  const inspect = async (
    begun: NdArray,
    step: number,
    x0: NdArray,
    options: InspectOptions = {},
  ) => {
    const tapped = await networksUnder(resolved, input, context, undefined, options);
    const moment = { level: levels[step - 1]!, x: begun, x0 };
    return inspectStep(moment, process, run, tapped, guidable(context));
  };
  const denoise = process.denoise(networks, run);
  let x = process.begin(run);
  const sampling = process.step(denoise, x, run);
  const reported = mapSteps(sampling, async ({ step, steps, estimate, x: reached }) => {
    const begun = x;
    x = reached;
    const cached = networks.cached && { ...networks.cached };
    onProgress?.({ step, steps, cached });
    // So that a page paints the preview, and a click on "cancel" is heard before the next step.
    await otherEvents();
    signal?.throwIfAborted();
    return {
      step,
      steps,
      cached,
      preview: () => decode(estimate),
      inspect: (options?: InspectOptions) => inspect(begun, step, estimate, options),
    };
  });
  const result = yield* closingAfter(reported, () => shared.leave());
  checkFinite("the last step", [result]);
  const pictures = await decode(result);
  return pictures.map((picture, i) => ({ ...picture, seed: seeds[i]! }));
}

/** The first frame, with the clip it begins. */
function firstPicture(clip: Clip): Picture & { readonly clip: Clip } {
  return { ...picturesOfClip(clip)[0]!, clip };
}

/** Yields and returns what steps do, and calls `close` once they are over: done, failed, or not asked for again. */
async function* closingAfter<T, R>(steps: AsyncGenerator<T, R>, close: () => void) {
  try {
    return yield* steps;
  } finally {
    close();
  }
}

/**
 * The frames that each clip is drawn around; undefined if there are none. A loop without a first frame begins with one that is drawn
 * as a still picture, in as many steps.
 */
async function* keptFrames(
  request: GenerateRequest,
  { count }: GenerateSettings,
  context: GenerationContext,
): AsyncGenerator<GenerateStep, readonly KeptFrames[] | undefined> {
  const { image, lastImage, extend, loop } = request;
  if (!givesFrames(request)) return undefined;
  const first = extend ?? (image && clipOfPictures([image]));
  const leading = first
    ? new Array<Clip>(count).fill(first)
    : loop
      ? (yield* draw({ ...request, frames: 1, loop: false }, context)).map(({ clip }) => clip)
      : [];
  return Array.from({ length: count }, (_, row) => ({
    leading: leading[row],
    last: loop ? picturesOfClip(leading[row]!)[0] : lastImage,
  }));
}

/** Latents, tokens, or pixels in [−1, 1] → pictures, decoded one by one, since decoding takes the most memory. */
async function decodePictures(
  latents: NdArray,
  { model, stages, run }: GenerationContext,
  signal: AbortSignal | undefined,
): Promise<Picture[]> {
  const { decoder } = model;
  if (!decoder) return picturesOf(latents);
  const pictures: Picture[] = [];
  for (let row = 0; row < latents.shape[0]!; row++) {
    signal?.throwIfAborted();
    const decode = async (tile: NdArray) => {
      const stage = stages.decoder(tile.shape.slice(-2) as [number, number])!;
      return (await run(stage, { latents: tile }))["pixels"]!;
    };
    const own = rowsOf(latents, row, 1);
    const { tile } = stages;
    const pixels =
      tile === undefined
        ? await decode(own)
        : await tiledDecode(decode, castArray(own, "float32"), { tile, overlap: tile / 4 });
    pictures.push(...picturesOf(pixels));
  }
  return pictures;
}

/** Decodes latents or pixels of clips [B, C, F, h, w]. */
async function decodeClips(
  latents: NdArray,
  context: GenerationContext,
  signal: AbortSignal | undefined,
): Promise<Clip[]> {
  const clips: Clip[] = [];
  for (let row = 0; row < latents.shape[0]!; row++) {
    clips.push(await decodeClip(castArray(rowsOf(latents, row, 1), "float32"), context, signal));
  }
  return clips;
}

/** One clip, [1, C, F, h, w]: in chunks by a decoder of clips, or frame by frame by one of pictures. */
async function decodeClip(
  latents: NdArray<"float32">,
  context: GenerationContext,
  signal: AbortSignal | undefined,
): Promise<Clip> {
  const { model, stages, run } = context;
  const [, channels, frames, height, width] = latents.shape as [1, number, number, number, number];
  if (model.clipDecoder) {
    const decoder = (size: readonly [number, number]) => stages.clipCoder("decode", size)!;
    return decodeClipLatents(latents, { decoder, run, signal });
  }
  if (!model.decoder) return framesOf(latents)[0]!;
  const pictures: Picture[] = [];
  for (let frame = 0; frame < frames; frame++) {
    const { data } = sliceFrames(latents, frame, frame + 1);
    const still = ndarray("float32", [1, channels, height, width], data);
    pictures.push(...(await decodePictures(still, context, signal)));
  }
  return clipOfPictures(pictures);
}
