/**
 * Frames that a clip is drawn around: a first one, a last one, both, or the clip that it goes on from. They are encoded alone, stay
 * without noise while the others are drawn, and are put into the clip as they are.
 */
import { castArray, type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import type { CleanTokens } from "../diffusion/inpainting.ts";
import { codecShape } from "../models/coders/image-codec.ts";
import { joinFrames, type RunChunk, sliceFrames } from "../models/coders/video-chunks.ts";
import { imageSizes, separateTimes } from "../models/network.ts";
import { familyOf } from "../models/families.ts";
import { type Clip, clipOfPictures, picturesOfClip } from "../pictures/clip.ts";
import { type Picture, valuesOf, withChannels } from "../pictures/picture.ts";
import {
  framesPerLatent,
  type ImageModel,
  latentFrames,
  type RunStage,
  type Stages,
} from "./image-model.ts";
import type { GivenLatents } from "./process.ts";
import type { GenerateRequest } from "./settings.ts";

/** The settings that give frames. */
type Given = Pick<GenerateRequest, "image" | "lastImage" | "extend" | "loop" | "mask" | "strength">;

type Sized = {
  readonly width: number;
  readonly height: number;
  readonly frames?: number | undefined;
};

/** The frames of one clip that are given. */
export interface KeptFrames {
  /** The first ones. */
  readonly leading?: Clip | undefined;
  readonly last?: Picture | undefined;
}

/** Returns true if a request gives frames, or asks for a loop, whose last frame is its first. */
export function givesFrames({ image, lastImage, extend, loop }: Given): boolean {
  return [image, lastImage, extend].some((each) => each !== undefined) || loop === true;
}

/**
 * Checks that the given frames fit one another, the clip and the model.
 *
 * @param settings the resolved settings of the request
 * @throws UsageError that names the setting at fault
 */
export function checkGivenFrames(given: Given, settings: Sized, model: ImageModel): void {
  const { image, lastImage, extend, loop, mask, strength } = given;
  const { name, network } = model;
  if (network.frames === undefined) {
    const of = { lastImage, extend, loop: loop || undefined };
    const [setting] = Object.entries(of).find(([, value]) => value !== undefined) ?? [];
    if (setting === undefined) return;
    throw new UsageError(`${name} draws still pictures, which have no ${setting}; leave it out.`);
  }
  if (mask || strength !== undefined) {
    throw new UsageError(
      `${name} draws clips around whole frames, which are kept as they are, so ${mask ? "mask" : "strength"} has no effect; leave it out.`,
    );
  }
  if (image && extend) {
    throw new UsageError(
      "Both image and extend give the first frames of the clip; give one of them.",
    );
  }
  if (loop && lastImage) {
    throw new UsageError(
      "A loop ends with its first frame, so there can be no lastImage; leave one of them out.",
    );
  }
  if (!givesFrames(given)) return;
  for (const [setting, frames] of Object.entries({ image, lastImage, extend })) {
    if (frames) checkSize(setting, frames, settings);
  }
  const leading = extend?.frames ?? (image || loop ? 1 : 0);
  checkCount(leading, lastImage || loop ? 1 : 0, settings.frames!, model);
  if (loop && !image && !extend) checkStill(model);
}

function checkSize(setting: string, { width, height }: Sized, asked: Sized): void {
  if (width === asked.width && height === asked.height) return;
  throw new UsageError(
    `The frames of ${setting} have ${width}×${height} pixels, but the clip has ${asked.width}×${asked.height}; resize them, or leave the size out.`,
  );
}

function checkCount(leading: number, last: number, frames: number, model: ImageModel): void {
  const each = framesPerLatent(model);
  if (leading > 0 && (leading - 1) % each !== 0) {
    const fewer = Math.floor((leading - 1) / each) * each + 1;
    throw new UsageError(
      `The clip to extend has ${leading} frames, but after the first, ${model.name} draws ${each} at a time; give its last ${fewer} frames.`,
    );
  }
  const latents = (frames - 1) / each + 1;
  const kept = (leading > 0 ? (leading - 1) / each + 1 : 0) + last;
  if (kept < latents) return;
  throw new UsageError(
    `A clip of ${frames} frames around ${leading + last} given ones leaves nothing to draw; give more frames.`,
  );
}

/** A loop without a first frame begins with a frame that is drawn as a still picture. */
function checkStill(model: ImageModel): void {
  try {
    latentFrames(1, model);
  } catch (cause) {
    throw new UsageError(
      `${model.name} cannot draw a single frame for a loop to begin with; give the first frame as image.`,
      { cause },
    );
  }
}

/** What encoding needs of a pipeline. */
interface Encoding {
  readonly model: ImageModel;
  readonly stages: Stages;
  readonly run: RunStage;
}

export interface GivenFrames extends GivenLatents {
  /** Puts the given frames into a drawn clip. */
  readonly finish: (drawn: Clip, row: number) => Clip;
}

/**
 * Encodes the frames that are given for each clip.
 *
 * @param rows one for each clip, all with the same frames given
 * @param shape of the network's input, [count, channels, frames, height, width]
 */
export async function encodeGivenFrames(
  rows: readonly KeptFrames[],
  shape: readonly number[],
  context: Encoding,
): Promise<GivenFrames> {
  const { model } = context;
  const { network, decoder, clipDecoder } = model;
  const channels = (clipDecoder ? 3 : decoder ? codecShape(decoder).inputs : network.channels) as
    | 1
    | 3;
  const kept = rows.map(({ leading, last }) => ({
    leading: leading && withChannels(leading, channels),
    last: last && withChannels(last, channels),
  }));
  const [, , frames] = shape as readonly [number, number, number];
  const parts: NdArray<"float32">[] = [];
  let begin = 0;
  let end = frames;
  for (const { leading, last } of kept) {
    const first = leading && (await encodeClip(leading, context));
    begin = first?.shape[2] ?? 0;
    // Latents stand for several frames, all of which are the last one here.
    const copies = last && new Array<Picture>(1 + framesPerLatent(model)).fill(last);
    const coded = copies && (await encodeClip(clipOfPictures(copies), context));
    end = coded ? frames - 1 : frames;
    const unknown = emptyFrames(shape, end - begin);
    const final = coded && sliceFrames(coded, coded.shape[2]! - 1, coded.shape[2]!);
    parts.push(joinFrames([first, unknown, final].filter((part) => part !== undefined)));
  }
  const given = (frame: number) => frame < begin || frame >= end;
  return {
    latents: stacked(parts),
    mask: byFrame(shape, (frame) => (given(frame) ? 0 : 1)),
    clean: familyOf(network).timePer ? cleanTokens(shape, given, model) : undefined,
    finish: (drawn, row) => withFrames(drawn, kept[row]!),
  };
}

/** Latents, or pixels in [−1, 1], of a clip: [1, channels, frames, height, width]. */
async function encodeClip(clip: Clip, { stages, run }: Encoding) {
  const pixels = valuesOf(clip.pixels, clip);
  const { height, width } = clip;
  const coding = stages.clipCoder("encode", [height, width]);
  if (coding) {
    const parts: NdArray<"float32">[] = [];
    const runChunk: RunChunk = (graph, inputs) => run(coding.stage(graph), inputs);
    for await (const part of coding.coder.code(pixels, runChunk)) parts.push(part);
    return joinFrames(parts);
  }
  const encoder = stages.imageEncoder([height, width]);
  if (!encoder) return pixels;
  const parts: NdArray<"float32">[] = [];
  for (const picture of picturesOfClip(clip)) {
    const images = valuesOf(picture.pixels, picture);
    const latents = castArray((await run(encoder, { images }))["latents"]!, "float32");
    const [one, channels, ...size] = latents.shape as [number, number, number, number];
    parts.push(ndarray("float32", [one, channels, 1, ...size], latents.data));
  }
  return joinFrames(parts);
}

/** Latents of which nothing is known: [1, channels, frames, height, width] of zeros. */
function emptyFrames([, channels, , ...size]: readonly number[], frames: number) {
  const shape = [1, channels!, frames, ...size];
  return ndarray("float32", shape, new Float32Array(sizeOf(shape)));
}

function stacked(parts: readonly NdArray<"float32">[]): NdArray<"float32"> {
  const [, ...shape] = parts[0]!.shape;
  const size = sizeOf(shape);
  const data = new Float32Array(parts.length * size);
  for (const [i, part] of parts.entries()) data.set(part.data, i * size);
  return ndarray("float32", [parts.length, ...shape], data);
}

/** An array of the network's input shape whose values depend on the frame alone. */
function byFrame(shape: readonly number[], value: (frame: number) => number) {
  const [rows, channels, frames, ...size] = shape as [number, number, number, number, number];
  const area = sizeOf(size);
  const data = new Float32Array(sizeOf(shape));
  for (let plane = 0; plane < rows * channels * frames; plane++) {
    data.fill(value(plane % frames), plane * area, (plane + 1) * area);
  }
  return ndarray("float32", shape, data);
}

/** The tokens all of whose frames are given. */
function cleanTokens(
  shape: readonly number[],
  given: (frame: number) => boolean,
  { network }: ImageModel,
): CleanTokens {
  const [rows, , frames, height, width] = shape as [number, number, number, number, number];
  // Frames that a token is made of.
  const unit = imageSizes(network).frames?.unit ?? 1;
  const groups = frames / unit;
  const isClean = Array.from({ length: groups }, (_, group) =>
    Array.from({ length: unit }, (_frame, i) => given(group * unit + i)).every(Boolean),
  );
  const count = separateTimes(network, [height, width], frames);
  const own = count / groups;
  return {
    mask: byFrame(shape, (frame) => (isClean[Math.floor(frame / unit)]! ? 0 : 1)),
    timesAt: ({ time }) => {
      const times = Float32Array.from({ length: rows * count }, (_, i) =>
        isClean[Math.floor((i % count) / own)]! ? 0 : time,
      );
      return ndarray("float32", [rows, count], times);
    },
  };
}

/** A clip with the given frames in their places. */
function withFrames(clip: Clip, { leading, last }: KeptFrames): Clip {
  const pixels = clip.pixels.slice();
  if (leading) pixels.set(leading.pixels);
  if (last) pixels.set(last.pixels, pixels.length - last.pixels.length);
  return { ...clip, pixels };
}

/** A clip without its last frame, which in a loop is the first one again. */
export function withoutLastFrame(clip: Clip): Clip {
  const frames = clip.frames - 1;
  return {
    ...clip,
    frames,
    pixels: clip.pixels.subarray(0, (clip.pixels.length / clip.frames) * frames),
  };
}
