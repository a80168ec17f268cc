/**
 * Clips that are longer than what a network draws at a time. They are drawn window by window, and each window goes on from the last
 * frames of the one before, which stay as they are (Chen et al., 2024, "Diffusion Forcing").
 */
import { UsageError } from "../engine/errors.ts";
import { imageSizes } from "../models/network.ts";
import { familyOf } from "../models/families.ts";
import {
  framesPerLatent,
  latentFrames,
  ofClips,
  ownFrames,
  type SizedModel,
} from "./image-model.ts";

/** A part of a clip that is drawn at once. */
export interface Window {
  /** Frames of the clip before it. */
  readonly start: number;
  readonly frames: number;
  /** The first of its frames, which are known. */
  readonly known: number;
}

/** The settings that windows follow from. */
interface Lengths {
  readonly frames?: number | undefined;
  readonly window?: number | undefined;
}

/**
 * The windows of a clip, in order. The last one lies at the end of the clip, so that all have the same length.
 *
 * @param given frames at the beginning of the clip that are known
 * @param history frames that a window shares with the one before
 * @example windowsOf(16, 0, 8, 4) // frames 0 to 7, 4 to 11 and 8 to 15
 */
export function windowsOf(
  frames: number,
  given: number,
  window: number,
  history: number,
): readonly Window[] {
  if (frames <= window) return [{ start: 0, frames, known: given }];
  const windows: Window[] = [];
  for (let known = given; known < frames; known = windows.at(-1)!.start + window) {
    const start = known < window ? 0 : Math.min(known - history, frames - window);
    windows.push({ start, frames: window, known: known - start });
  }
  return windows;
}

/** The frames that a model draws at a time unless told otherwise: those of its training, if it was trained to go on from frames; else all. */
export function ownWindow(model: SizedModel): number | undefined {
  const { network } = model;
  return familyOf(network).timePer?.(network) === "frame" ? ownFrames(model) : undefined;
}

/**
 * Returns a window that a model can draw.
 *
 * @throws UsageError if the model draws no clips, or cannot draw so many frames at a time, or so few that none would be new
 */
export function checkedWindow(window: number, model: SizedModel): number {
  const latents = latentFrames(ofClips("window", window, model), model);
  const unit = imageSizes(model.network).frames?.unit ?? 1;
  if (latents > unit) return window;
  const least = unit * framesPerLatent(model) + 1;
  throw new UsageError(
    `A window of ${window} ${window === 1 ? "frame" : "frames"} leaves ${model.name} nothing to draw beside the frames that it goes on from; give at least ${least}.`,
  );
}

/** The frames of a window that the one before has drawn: about half, as many as the network takes at a time. */
export function historyOf(window: number, model: SizedModel): number {
  const unit = imageSizes(model.network).frames?.unit ?? 1;
  const latents = latentFrames(window, model);
  const shared = Math.max(1, Math.floor(latents / 2 / unit)) * unit;
  return (shared - 1) * framesPerLatent(model) + 1;
}

/** Frames of the network's input that are drawn at a time; undefined for pictures. */
export function drawnAtATime({ frames, window }: Lengths, model: SizedModel): number | undefined {
  return frames === undefined ? undefined : latentFrames(Math.min(frames, window ?? frames), model);
}
