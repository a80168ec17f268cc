/** The real pictures of a comparison: a reference to measure against, and others to tell how near real ones come. */
import type { DataConfig } from "../data/config.ts";
import type { PictureShape } from "../pictures/picture.ts";
import { openData } from "../data/open-node.ts";
import { FormatError, UsageError } from "../engine/errors.ts";
import { pictureShape, type TrainingConfig } from "../training/config/config.ts";
import type { Wishes } from "./drawing.ts";

export interface RealPictures {
  /** What a person calls the data. */
  readonly name: string;
  readonly classes: readonly string[] | undefined;
  readonly reference: Labelled;
  /** Where the reference is, in a few words. */
  readonly description: string;
  /** As many as models draw, of the training's; undefined where the reference is of these itself. */
  readonly others: Labelled | undefined;
  /** What models are asked to draw. */
  readonly wishes: Wishes;
}

export interface Labelled {
  /** [count, height, width, channels] */
  readonly pixels: Uint8Array;
  readonly labels: readonly number[] | undefined;
}

/** As many as a reference has at most: more move the FID by less than another seed does. */
const MOST = 5000;

/** Of the training's pictures and, where the config names some, held-out ones. */
export async function realPictures(
  { data, validation, picture }: TrainingConfig,
  count: number,
): Promise<RealPictures> {
  const shape = pictureShape({ picture });
  const held = validation?.data;
  const [others, reference] = [
    await read(data, shape, count),
    await read(held ?? data, shape, MOST),
  ];
  return {
    name: others.name,
    classes: others.classes,
    reference,
    description: `${reference.labels.length.toLocaleString("en")} ${held ? "held-out pictures" : "of the training's own pictures"}`,
    others: held && others,
    wishes: {
      classes: others.classes,
      captions: reference.captioned ? reference.captions : others.captions,
    },
  };
}

async function read(config: DataConfig, shape: PictureShape, most: number) {
  const limit = Math.min(config.limit ?? most, most);
  const data = await openData({ ...config, limit, flip: false }, shape);
  try {
    const { name, count, classes, captioned } = data;
    const [pixels, labels, captions] = [[] as Uint8Array[], [] as number[], [] as string[]];
    for (let i = 0; i < count; i++) {
      const example = await data.example(i).catch((error: unknown) => {
        if (error instanceof FormatError) return undefined;
        throw error;
      });
      if (!example) continue;
      pixels.push(example.pixels);
      labels.push(example.label ?? -1);
      captions.push(example.captions[0] ?? "");
    }
    if (pixels.length < 4) {
      throw new UsageError(
        `${name} has ${pixels.length} pictures that can be read, but a comparison measures on at least 4; give more.`,
      );
    }
    return { name, classes, captioned, labels, captions, pixels: joined(pixels) };
  } finally {
    await data.close();
  }
}

function joined(pictures: readonly Uint8Array[]): Uint8Array {
  const [{ length }] = pictures as [Uint8Array];
  const all = new Uint8Array(pictures.length * length);
  for (const [i, each] of pictures.entries()) all.set(each, i * length);
  return all;
}
