/** Real pictures for a comparison: the reference set of the measures, and further ones that show how well real pictures score. */
import { type DataConfig, limitedTo } from "../data/config.ts";
import type { PictureShape } from "../pictures/picture.ts";
import { openData } from "../data/open-node.ts";
import { joined } from "../engine/bytes.ts";
import { counted, FormatError, UsageError } from "../engine/errors.ts";
import type { NetworkConfig } from "../models/network.ts";
import {
  pictureShape,
  type TrainingConfig,
  trainingData,
  validationData,
} from "../training/config/config.ts";
import { matchCondition } from "../training/tasks/checks.ts";
import type { Prompts } from "./drawing.ts";

export interface RealPictures {
  /** The display name of the data. */
  readonly name: string;
  readonly classes: readonly string[] | undefined;
  readonly reference: Labelled;
  /** A short description of the reference. */
  readonly description: string;
  /** Training pictures, one for each that a model draws; undefined if the reference itself consists of training pictures. */
  readonly others: Labelled | undefined;
  readonly prompts: Prompts;
}

export interface Labelled {
  /** [count, height, width, channels] */
  readonly pixels: Uint8Array;
  readonly labels: readonly number[] | undefined;
}

/** The largest size of the reference: more pictures change the FID by less than another seed does. */
const MOST = 5000;

/** Reads training pictures and held-out ones as the reference, if there are some. */
export async function realPictures(config: TrainingConfig, count: number): Promise<RealPictures> {
  const shape = pictureShape(config);
  const data = trainingData(config);
  const others = await read(data, shape, count);
  const held = validationData(config, others.heldOut ?? 0)?.data;
  const reference = await read(held ?? data, shape, MOST);
  // The extractor and the drawings know the classes by their places in the training data.
  const places = matchCondition(
    { condition: conditionBy(others.classes) },
    reference,
    others.classes,
  );
  return {
    name: others.name,
    classes: others.classes,
    reference: { ...reference, labels: reference.labels.map((label) => places?.[label] ?? label) },
    description: `${reference.labels.length.toLocaleString("en")} ${held ? "held-out pictures" : "of the training pictures"}`,
    others: held && others,
    prompts: {
      classes: others.classes,
      captions: reference.captioned ? reference.captions : others.captions,
    },
  };
}

function conditionBy(classes: readonly string[] | undefined): NetworkConfig["condition"] {
  return classes ? { kind: "class", classes: classes.length, nullClass: true } : { kind: "none" };
}

async function read(config: DataConfig, shape: PictureShape, most: number) {
  const data = await openData({ ...limitedTo(config, most), flip: false }, shape);
  try {
    const { name, count, classes, captioned, heldOut } = data;
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
        `${name} has ${counted(pixels.length, "readable picture")}, but a comparison needs at least 4; add more.`,
      );
    }
    return { name, classes, captioned, heldOut, labels, captions, pixels: joined(pixels) };
  } finally {
    await data.close();
  }
}
