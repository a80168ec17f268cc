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
import {
  type Clip,
  clipOfPictures,
  joinClips,
  picturesOfClip,
  sliceClip,
} from "../pictures/clip.ts";
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
import { historyOf, windowsOf } from "./roll-out.ts";
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
  if (model.missingParts !== undefined) throw new UsageError(model.missingParts);
  const { channels } = model.network;
  if (!model.decoder && !model.clipDecoder && channels !== 1 && channels !== 3) {
    throw new UsageError(
      `${model.name} draws latents of ${channels} channels and has no autoencoder to decode them; give Stable Diffusion's as the VAE (--vae), a folder or a .safetensors file.`,
    );
  }
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

/** Draws pictures, or clips window by window; steps are counted over all windows. */
async function* draw(
  request: GenerateRequest,
  context: GenerationContext,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { model } = context;
  const resolved = context.resolve(request);
  const { settings, levels } = resolved;
  const { count, frames, window = frames } = settings;
  const seeds = Array.from({ length: count }, (_, i) => settings.seed + i);
  const kept = frames === undefined ? undefined : yield* keptFrames(request, settings, context);
  if (frames === undefined) {
    const drawing = { resolved, request, seeds, before: 0, all: levels.length - 1 };
    return yield* drawWindow(drawing, undefined, context);
  }
  const given = kept?.[0]?.leading?.frames ?? 0;
  const windows = windowsOf(frames, given, window!, historyOf(window!, model));
  const each = levels.length - 1;
  let clips = kept?.map(({ leading }) => leading) ?? [];
  let pictures: readonly DrawnPicture[] = [];
  for (const [i, { start, known, frames: length }] of windows.entries()) {
    const final = i === windows.length - 1;
    const before = clips;
    const around = Array.from({ length: count }, (_, row) => ({
      leading: known > 0 ? sliceClip(before[row]!, start, start + known) : undefined,
      last: final ? kept?.[row]?.last : undefined,
    }));
    const finish = (clip: Clip, row: number) => {
      const whole = start > 0 ? joinClips(sliceClip(before[row]!, 0, start), clip) : clip;
      return final && settings.loop ? withoutLastFrame(whole) : whole;
    };
    // Every window has noise of its own.
    const noisy = seeds.map((seed) => (seed + i * WINDOW_SEEDS) % Number.MAX_SAFE_INTEGER);
    const drawing = {
      resolved,
      request,
      seeds: noisy,
      before: i * each,
      all: windows.length * each,
    };
    pictures = yield* drawWindow(drawing, { start, frames: length, around, finish }, context);
    clips = pictures.map(({ clip }) => clip);
  }
  return pictures.map((picture, i) => ({ ...picture, seed: seeds[i]! }));
}

/** Between the seeds of a clip's windows; a large prime, so that they are no seeds of clips nearby. */
const WINDOW_SEEDS = 1_000_000_007;

/** Pictures, or a window of clips, to be drawn. */
interface Drawing {
  readonly resolved: ResolvedRequest;
  readonly request: GenerateRequest;
  readonly seeds: readonly number[];
  /** Steps of earlier windows, and of all. */
  readonly before: number;
  readonly all: number;
}

/** A window of clips. */
interface DrawnWindow {
  /** Frames of the clips before it. */
  readonly start: number;
  readonly frames: number;
  /** The known frames of each clip. */
  readonly around: readonly KeptFrames[];
  /** The clip up to the end of this window. */
  readonly finish: (drawn: Clip, row: number) => Clip;
}

async function* drawWindow(
  { resolved, request, seeds, before, all }: Drawing,
  window: DrawnWindow | undefined,
  context: GenerationContext,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { model } = context;
  const { process } = model;
  const { signal, onProgress } = request;
  const { settings, levels } = resolved;
  const size = latentSize(settings, model);
  const frames = window && latentFrames(window.frames, model);
  const [[, ...row]] = networkInput({ ...model.network, frames }, size);
  const shape = [settings.count, ...(row as number[])];

  const around = window && (await framesAround(window, shape, context));
  const image = window ? undefined : await encodeGivenImage(request, shape, context);
  const given = around ?? image;
  const references = await encodeReferences(resolved.references, settings.count, context);
  const start = window?.start;
  const input = { size, frames, start, timePerToken: around?.clean !== undefined, references };
  const shared = context.takePart();
  const networks = await networksUnder(resolved, input, { ...context, run: shared.run }, signal);
  const run = samplingRun({ resolved, seeds, shape, given, signal }, model);
  const decode = async (drawn: NdArray) => {
    if (!window) {
      const pictures = await decodePictures(drawn, context, signal);
      return image ? pictures.map(image.finish) : pictures;
    }
    const clips = await decodeClips(drawn, context, signal);
    return clips.map((drawnClip, i) =>
      firstPicture(window.finish(around ? around.finish(drawnClip, i) : drawnClip, i)),
    );
  };

  const inspect = async (begun: NdArray, step: number, x0: NdArray, options?: InspectOptions) => {
    const tapped = await networksUnder(resolved, input, context, undefined, options ?? {});
    const moment = { level: levels[step - 1]!, x: begun, x0 };
    return inspectStep(moment, process, run, tapped, guidable(context));
  };
  const denoise = process.denoise(networks, run);
  let x = process.begin(run);
  const sampling = process.step(denoise, x, run);
  const reported = mapSteps(sampling, async ({ step, estimate, x: reached }) => {
    const begun = x;
    x = reached;
    const progress = {
      step: before + step,
      steps: all,
      cached: networks.cached && { ...networks.cached },
    };
    onProgress?.(progress);
    // So that a page paints the preview, and a click on "cancel" is heard before the next step.
    await otherEvents();
    signal?.throwIfAborted();
    return {
      ...progress,
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

/** The known frames of a window as the network sees them; undefined if there are none. */
async function framesAround(
  { around }: DrawnWindow,
  shape: readonly number[],
  context: GenerationContext,
) {
  const [first] = around;
  if (!first?.leading && !first?.last) return undefined;
  return encodeGivenFrames(around, shape, context);
}

/** A drawing as the process of a model takes it. */
function samplingRun(
  {
    resolved: { settings, levels },
    ...rest
  }: Pick<SamplingRun, "seeds" | "shape" | "given" | "signal"> & Pick<Drawing, "resolved">,
  { network }: ImageModel,
): SamplingRun {
  // A network that takes the scale as an input guides itself.
  const guiding = guidesItself(network) ? { ...settings, guidance: 1 } : settings;
  return { settings: guiding, levels, learnedVariance: network.learnedVariance, ...rest };
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
