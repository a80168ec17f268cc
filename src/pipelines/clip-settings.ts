/** The settings of clips: rows of the table in `settings.ts`. */
import * as z from "zod";
import type { Clip } from "../pictures/clip.ts";
import { isPicture, type Picture } from "../pictures/picture.ts";
import { checkedFrames, ofClips, ownFrames, ownRate } from "./image-model.ts";
import { checkedWindow, ownWindow } from "./roll-out.ts";
import { isClip, setting } from "./setting.ts";

const pictureExpected =
  "a picture: width, height, channels (1 or 3) and one byte for each in pixels";

export const clipSettings = {
  /** Number of frames, a whole number from 1, for models that draw clips. The model's own number by default. */
  frames: setting({
    type: z.int().min(1),
    expected: "a whole number of at least 1",
    help: "frames of a clip, for models that draw clips; the model's own number unless given",
    flags: [{ flag: "--frames <n>", parse: "number" }],
    aliases: ["numFrames", "num_frames"],
    default: ({ model }) => model.defaults.frames ?? ownFrames(model),
    forModel: checkedFrames,
  }),
  /**
   * Number of frames that are drawn at a time; a longer clip goes on from the last half of them. The number of its training by default for a
   * model that was trained to go on from frames, and all frames for others.
   */
  window: setting({
    type: z.int().min(1),
    expected: "a whole number of at least 1",
    help: "frames that are drawn at a time, from the last half of which a longer clip goes on; the model's own number unless given",
    flags: [{ flag: "--window <n>", parse: "number" }],
    default: ({ model }) => ownWindow(model),
    forModel: checkedWindow,
  }),
  /** Frames a second of a clip, above 0 and at most 1000. The model's own number by default. */
  fps: setting({
    type: z.number().gt(0).max(1000),
    expected: "a number of frames a second above 0, at most 1000",
    help: "frames a second of a clip; the model's own number unless given",
    flags: [{ flag: "--fps <n>", parse: "number" }],
    default: ({ model }) => ownRate(model),
    forModel: (fps, model) => ofClips("fps", fps, model),
  }),
  /**
   * Share of the noise that all frames of a clip have in common, from 0 to 1: with more, what does not move flickers less. The model's own by
   * default, which for most is 0.
   */
  sharedNoise: setting({
    type: z.number().min(0).max(1),
    expected: "a number from 0 to 1",
    help: "share of the noise that all frames of a clip have in common, against flicker; the model's own unless given",
    flags: [{ flag: "--shared-noise <share>", parse: "number" }],
    only: "continuous",
    default: ({ model }) => model.defaults.sharedNoise,
    forModel: (share, model) => ofClips("sharedNoise", share, model),
  }),
  /** Last frame of a clip; with `image`, what lies between the two is drawn. None by default. */
  lastImage: setting({
    type: z.custom<Picture>(isPicture),
    expected: pictureExpected,
    help: "last frame of a clip; with --image, what lies between the two is drawn",
    flags: [{ flag: "--last-image <file>", parse: "picture" }],
    aliases: ["last_image"],
    only: "continuous",
    unrecorded: true,
  }),
  /** Clip to go on from: its frames are the first of `frames`. None by default. */
  extend: setting({
    type: z.custom<Clip>(isClip),
    expected: "a clip: frames, width, height, channels (1 or 3) and one byte for each in pixels",
    help: "clip to go on from, an animated file or a folder of frames: the first of --frames",
    flags: [{ flag: "--extend <file|dir>", parse: "clip" }],
    only: "continuous",
    unrecorded: true,
  }),
  /**
   * Whether a clip ends with its first frame, which is drawn first unless given; the last frame, its repetition, is left out. False by default.
   */
  loop: setting({
    type: z.boolean(),
    expected: "true or false",
    help: "end with the first frame, which is drawn first unless given; the last frame, its repetition, is left out",
    flags: [{ flag: "--loop", parse: "flag" }],
    only: "continuous",
  }),
  /** Picture to start from, of the size that is drawn; for models of clips the first frame, which is kept. None by default. */
  image: setting({
    type: z.custom<Picture>(isPicture),
    expected: pictureExpected,
    help: "picture to start from, of the size that is drawn; for models of clips the first frame, which is kept",
    flags: [{ flag: "--image <file>", parse: "picture" }],
    unrecorded: true,
  }),
};
