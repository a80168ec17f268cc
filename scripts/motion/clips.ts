/** The clips that the bundled model of clips learns from: emoji in motion, as `data.motions` moves them. */
import { isHeldOut } from "../../src/data/formats/emoji/emoji-node.ts";
import { type MotionName, poseAt, posed } from "../../src/data/motions.ts";
import { SIDE, VALUES } from "../emoji/pictures.ts";

/** Frames of the clips, a part of a longer one. */
export const FRAMES = 8;
/** Frames after which a motion repeats. */
export const PERIOD = 16;
const AREA = SIDE * SIDE;

/** Returns true if an emoji in a motion is held out, though the emoji and the motion may be known: a twentieth of all. */
export function isPairHeldOut(hexcode: string, motion: MotionName): boolean {
  return isHeldOut(`${hexcode} ${motion}`);
}

/** A picture on white, [64, 64, 3]. */
export function onWhite(rgba: Uint8Array): Uint8Array {
  const pixels = new Uint8Array(VALUES);
  for (let i = 0; i < AREA; i++) {
    const opacity = rgba[4 * i + 3]! / 255;
    for (let c = 0; c < 3; c++) {
      pixels[3 * i + c] = Math.round(rgba[4 * i + c]! * opacity + 255 * (1 - opacity));
    }
  }
  return pixels;
}

/** The frames of a picture on white in motion, [frames][64, 64, 3], from a frame of the motion on. */
export function framesInMotion(
  still: Uint8Array,
  motion: MotionName,
  start: number,
  frames = FRAMES,
): readonly Uint8ClampedArray[] {
  const shape = { height: SIDE, width: SIDE, channels: 3 } as const;
  return Array.from({ length: frames }, (_, frame) =>
    posed(still, shape, poseAt(motion, ((start + frame) % PERIOD) / PERIOD)),
  );
}

/** Writes frames as values in [−1, 1], [3, frames, 64, 64], into a batch. */
export function writeClip(
  clip: readonly ArrayLike<number>[],
  values: Float32Array,
  offset: number,
): void {
  for (const [frame, pixels] of clip.entries()) {
    for (let i = 0; i < AREA; i++) {
      for (let c = 0; c < 3; c++) {
        values[offset + (c * clip.length + frame) * AREA + i] = pixels[3 * i + c]! / 127.5 - 1;
      }
    }
  }
}
