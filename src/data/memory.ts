/** Pictures in memory as a data set. */
import { quote, UsageError } from "../engine/errors.ts";
import { kinds, type OptionKind, requireKind } from "../engine/options.ts";
import { type Picture, pictureKind, type PictureShape } from "../pictures/picture.ts";
import { charactersOf, type DataSet } from "./dataset.ts";

/** A picture to train on, with its class or its captions. */
export interface LabelledPicture extends Picture {
  /** The class: its name, or its index from 0. */
  readonly label?: string | number | undefined;
  /** A caption, or several of which one is drawn each time. */
  readonly caption?: string | readonly string[] | undefined;
}

export interface PictureSetOptions {
  /** How messages and events call the pictures; "pictures" by default. */
  readonly name?: string | undefined;
  /** The names of the classes, in order. By default the sorted labels, or "0", "1" … for numbers. */
  readonly classes?: readonly string[] | undefined;
}

/**
 * Makes a data set of pictures of one size.
 *
 * @example const data = pictureSet([{ width: 2, height: 1, channels: 1, pixels: Uint8Array.of(0, 255), label: "edge" }]);
 * @throws UsageError when there are no pictures, when they differ in size, or when a label is not among the classes
 */
export function pictureSet(
  pictures: readonly LabelledPicture[],
  { name = "pictures", classes }: PictureSetOptions = {},
): DataSet & { readonly shape: PictureShape } {
  const shape = shapeOf(pictures);
  const names = classes ?? classesOf(pictures);
  const labels = pictures.map((picture, i) => names && labelOf(picture, i, names));
  const captions = pictures.map(({ caption }) =>
    caption === undefined ? [] : typeof caption === "string" ? [caption] : [...caption],
  );
  return {
    shape,
    name,
    count: pictures.length,
    classes: names,
    captioned: captions.some((each) => each.length > 0),
    survey: {
      captions: captions.slice(0, 2000).flatMap((each) => each.slice(0, 1)),
      characters: charactersOf(captions.flat()),
      notes: [],
    },
    nameOf: (index) => `picture ${index}`,
    example: async (index) => ({
      pixels: pictures[index]!.pixels,
      label: labels[index],
      captions: captions[index]!,
    }),
    close: () => Promise.resolve(),
  };
}

/** Anything with pixels: checks below say whether its size or its bytes are wrong. */
const described: OptionKind = {
  expected: pictureKind.expected,
  accepts: (value) =>
    typeof value === "object" && value !== null && ArrayBuffer.isView((value as Picture).pixels),
};

function shapeOf(pictures: readonly LabelledPicture[]): PictureShape {
  requireKind("pictures", pictures, kinds.list);
  const [first] = pictures;
  if (first === undefined)
    throw new UsageError("There are no pictures to train on; give at least one.");
  requireKind("picture 0", first, described);
  const { height, width, channels } = first;
  for (const [i, each] of pictures.entries()) {
    requireKind(`picture ${i}`, each, described);
    if (each.height !== height || each.width !== width || each.channels !== channels) {
      throw new UsageError(
        `Picture ${i} is ${sizeText(each)}, but picture 0 is ${sizeText(first)}; bring all pictures to one size.`,
      );
    }
    if (each.pixels.length !== height * width * channels) {
      throw new UsageError(
        `Picture ${i} has ${each.pixels.length} bytes, but ${sizeText(each)} take ${height * width * channels}; give one byte for each channel of each pixel.`,
      );
    }
  }
  return { height, width, channels };
}

function sizeText({ width, height, channels }: PictureShape): string {
  return `${width}×${height} pixels of ${channels} channel${channels === 1 ? "" : "s"}`;
}

function classesOf(pictures: readonly LabelledPicture[]): readonly string[] | undefined {
  const labels = pictures.flatMap(({ label }) => (label === undefined ? [] : [label]));
  if (labels.length === 0) return undefined;
  const indices = labels.filter((label) => typeof label === "number");
  if (indices.length < labels.length) return [...new Set(labels.map(String))].sort();
  // Not Math.max(...indices): a spread of a large array overflows the stack.
  const count = indices.reduce((most, index) => Math.max(most, index + 1), 0);
  return Array.from({ length: count }, (_, index) => String(index));
}

function labelOf(
  { label }: LabelledPicture,
  i: number,
  classes: readonly string[],
): number | undefined {
  if (label === undefined) return undefined;
  const index = typeof label === "number" ? label : classes.indexOf(label);
  if (Number.isInteger(index) && index >= 0 && index < classes.length) return index;
  throw new UsageError(
    `The label of picture ${i} is ${quote(String(label))}, which is not a class; use one of ${classes.slice(0, 8).join(", ")}${classes.length > 8 ? ", …" : ""}, or an index below ${classes.length}.`,
  );
}
