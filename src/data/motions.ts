/** Still pictures in motion: clips whose motion is known, with the words for it, made of any data set of pictures. */
import type { FramesShape, PictureShape } from "../pictures/picture.ts";
import type { DataSet, Described } from "./dataset.ts";

/** Where a picture is at a moment, in units of half its side: 0 is the middle. */
export interface Pose {
  readonly right?: number;
  readonly down?: number;
  /** Clockwise, in turns. */
  readonly turned?: number;
  readonly scale?: number;
  /** Share of the picture in front of the background, in [0, 1]. */
  readonly visible?: number;
}

interface Motion {
  /** The words of captions, in front of what moves. */
  readonly word: string;
  /** The pose at a time in [0, 1), after which the motion repeats. */
  readonly at: (time: number) => Pose;
}

/** A picture that moves is smaller, so that it stays inside the frame. */
const small = 0.7;
const wave = (time: number) => Math.sin(2 * Math.PI * time);

const motions = {
  bounce: {
    word: "bouncing",
    at: (time) => ({ scale: small, down: 0.3 - 0.6 * Math.abs(Math.sin(Math.PI * time)) }),
  },
  spin: { word: "spinning", at: (time) => ({ scale: small, turned: time }) },
  slide: { word: "sliding", at: (time) => ({ scale: small, right: 0.3 * wave(time) }) },
  zoom: { word: "zooming", at: (time) => ({ scale: 0.75 - 0.25 * Math.cos(2 * Math.PI * time) }) },
  shake: {
    word: "shaking",
    at: (time) => ({ scale: small, turned: 0.06 * wave(2 * time), right: 0.1 * wave(2 * time) }),
  },
  fade: { word: "fading", at: (time) => ({ visible: 0.5 + 0.5 * Math.cos(2 * Math.PI * time) }) },
  stay: { word: "still", at: () => ({}) },
} satisfies Record<string, Motion>;

export type MotionName = keyof typeof motions;

export const motionNames = Object.keys(motions) as [MotionName, ...MotionName[]];

/** The pose of a motion at a time in [0, 1), after which it repeats. */
export function poseAt(motion: MotionName, time: number): Pose {
  return motions[motion].at(time);
}

/** The word for a motion in captions. */
export function wordOf(motion: MotionName): string {
  return motions[motion].word;
}

/**
 * A clip of a still picture in motion, which lasts one period.
 *
 * @param still [height, width, channels]
 * @param phase where in the motion it begins, in [0, 1)
 * @returns [frames, height, width, channels]
 */
export function inMotion(
  still: Uint8Array,
  shape: PictureShape & { readonly frames: number },
  motion: MotionName,
  phase = 0,
): Uint8Array {
  const { frames } = shape;
  const clip = new Uint8Array(frames * still.length);
  for (let frame = 0; frame < frames; frame++) {
    const pose = poseAt(motion, (phase + frame / frames) % 1);
    clip.set(posed(still, shape, pose), frame * still.length);
  }
  return clip;
}

/** The picture in a pose; what lies outside it has the colour of its first corner. */
export function posed(still: Uint8Array, { height, width, channels }: PictureShape, pose: Pose) {
  const { right = 0, down = 0, turned = 0, scale = 1, visible = 1 } = pose;
  const angle = 2 * Math.PI * turned;
  const [cos, sin] = [Math.cos(angle) / scale, Math.sin(angle) / scale];
  const background = still.subarray(0, channels);
  const moved = new Uint8ClampedArray(still.length);
  const valueAt = (x: number, y: number, c: number) =>
    x < 0 || y < 0 || x >= width || y >= height
      ? background[c]!
      : still[(y * width + x) * channels + c]!;
  const [centreX, centreY] = [(width - 1) / 2, (height - 1) / 2];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [fromX, fromY] = [x - centreX - (right * width) / 2, y - centreY - (down * height) / 2];
      const sourceX = centreX + cos * fromX + sin * fromY;
      const sourceY = centreY - sin * fromX + cos * fromY;
      const [left, top] = [Math.floor(sourceX), Math.floor(sourceY)];
      const [u, v] = [sourceX - left, sourceY - top];
      for (let c = 0; c < channels; c++) {
        const upper = (1 - u) * valueAt(left, top, c) + u * valueAt(left + 1, top, c);
        const lower = (1 - u) * valueAt(left, top + 1, c) + u * valueAt(left + 1, top + 1, c);
        const value = (1 - v) * upper + v * lower;
        moved[(y * width + x) * channels + c] = visible * value + (1 - visible) * background[c]!;
      }
    }
  }
  return moved;
}

/**
 * Every picture of a data set in each of some motions. Captions begin with the word for the motion; classes without captions are
 * those of the pictures with the word behind them, or the words alone.
 *
 * @param shape of the clips
 */
export function animated(data: DataSet, names: readonly MotionName[], shape: FramesShape): DataSet {
  const { count, captioned, described } = data;
  const own = data.classes ?? [];
  const classes = captioned ? data.classes : named(own, names);
  const split = (index: number) => {
    const motion = Math.floor(index / count);
    return { still: index % count, motion, name: names[motion]! };
  };
  const withWords = ({ label, captions }: Described, motion: number): Described => {
    const word = wordOf(names[motion]!);
    if (captioned) return { label, captions: captions.map((text) => `${word} ${text}`) };
    const known = own.length === 0 ? 0 : label;
    return { label: known === undefined ? undefined : known * names.length + motion, captions };
  };
  const frames = shape.frames ?? 1;
  return {
    ...data,
    count: count * names.length,
    classes,
    nameOf: (index) => `${data.nameOf(split(index).still)}, ${wordOf(split(index).name)}`,
    ...(described && {
      described: async (index) => {
        const { still, motion } = split(index);
        return withWords(await described(still), motion);
      },
    }),
    async example(index) {
      const { still, motion, name } = split(index);
      const { pixels, ...rest } = await data.example(still);
      // Multiples of the golden ratio are spread evenly.
      const phase = (still * 0.618033988749895) % 1;
      return {
        pixels: inMotion(pixels, { ...shape, frames }, name, phase),
        ...withWords(rest, motion),
      };
    },
  };
}

/** Each class in each motion, or the motions alone. */
function named(classes: readonly string[], names: readonly MotionName[]): readonly string[] {
  const words = names.map(wordOf);
  if (classes.length === 0) return words;
  return classes.flatMap((each) => words.map((word) => `${each} ${word}`));
}
