/** The config of a data set: which pictures to train on. */
import * as z from "zod";
import { fittingFields } from "../pictures/fitting.ts";
import { emojiFields } from "./formats/emoji/config.ts";
import { motionNames } from "./motions.ts";

const path = z.string().min(1, "a path cannot be empty");

const names = z.array(z.string().min(1)).min(1);

/** A column or field by name, or false to ignore it even if it exists. */
const column = z.union([z.string().min(1), z.literal(false)]);

/** Names of numeric classes; "0", "1", … by default. */
const classNames = names.optional();

/** Selects one of several splits in a folder: the files whose names begin with it, such as train-00000-of-00002. */
const shardSplit = z.string().min(1).optional();

/** The fields of every kind of data set. */
const commonFields = {
  /** The number of pictures, taken at even distances from all of them; all by default. */
  limit: z.int().min(1).optional(),
  /** True if a picture is mirrored with probability 1/2. */
  flip: z.boolean().default(false),
};

/** The fields of every kind of data set of still pictures. */
const stillFields = {
  ...commonFields,
  /** Makes clips of the pictures, each in every one of these motions, with the word for it in front of the captions. */
  motions: z.array(z.enum(motionNames)).min(1).optional(),
};

/** How pictures without a caption or label are treated if others have one: fail, leave them out, or keep them. */
const undescribed = z.enum(["refuse", "skip", "keep"]).default("refuse");

const images = z.strictObject({
  kind: z.literal("images"),
  /**
   * A folder of PNG, JPEG, WebP, AVIF and GIF files, searched with all its subfolders. Captions come from a
   * metadata.jsonl or metadata.csv (file_name, text) in any folder, or from a .txt file beside each picture with one
   * caption per line. Without captions, the subfolders are the classes.
   */
  path,
  /** The metadata column with captions; `text` or `caption` by default. */
  caption: column.optional(),
  /** The metadata column with classes; `label` by default, if it exists. */
  label: column.optional(),
  /** True if subfolders are classes; by default if there are at least two, and neither metadata nor captions. */
  classes: z.boolean().optional(),
  undescribed,
  ...fittingFields,
  ...stillFields,
});

const clips = z.strictObject({
  kind: z.literal("clips"),
  /**
   * A folder of clips, searched with all its subfolders: animated WebP, GIF and PNG files, MP4 and WebM where ffmpeg is installed, folders
   * of numbered frames, and still pictures, which are clips of one frame. Captions and classes are given as for images.
   */
  path,
  /** The metadata column with captions; `text` or `caption` by default. */
  caption: column.optional(),
  /** The metadata column with classes; `label` by default, if it exists. */
  label: column.optional(),
  /** True if subfolders are classes; by default if there are at least two, and neither metadata nor captions. */
  classes: z.boolean().optional(),
  undescribed,
  /** The frames a second that are taken of files which say their own rate; their own unless given. */
  fps: z.number().positive().optional(),
  /** Takes every so many frames. */
  stride: z.int().min(1).default(1),
  ...fittingFields,
  ...commonFields,
});

const idx = z.strictObject({
  kind: z.literal("idx"),
  /** A folder with the IDX files of MNIST, Fashion-MNIST or a similar data set, gzipped or not. */
  path: path.default("/usr/share/datasets/fashion-mnist"),
  /** The part of the data set: "train", the default, or "test". */
  split: z.enum(["train", "test"]).default("train"),
  /** By default those of Fashion-MNIST if the folder's name contains "fashion", and "0" … "9" otherwise. */
  classes: classNames,
  /** `pad` centres the picture at its own size, as 28×28 is often padded to 32×32. */
  fit: z.enum(["cover", "contain", "pad"]).default("cover"),
  /** The colour around a contained or padded picture: white, black or six hexadecimal digits such as #ffcc00; black by default. */
  background: fittingFields.background.removeDefault().default("black"),
  ...stillFields,
});

const parquet = z.strictObject({
  kind: z.literal("parquet"),
  /** A file, or a folder of shards as Hugging Face publishes them. */
  path,
  split: shardSplit,
  /** The column of pictures; found by its type by default. */
  image: z.string().min(1).optional(),
  /** The column of classes; by default the one that the file's metadata calls a class label, or `label`. */
  label: column.optional(),
  /** The column of captions; by default `text`, `caption`, `captions` or `prompt`. */
  caption: column.optional(),
  classes: classNames,
  undescribed,
  ...fittingFields,
  ...stillFields,
});

const tar = z.strictObject({
  kind: z.literal("tar"),
  /** A WebDataset archive, or a folder of shards: 0001.jpg with 0001.txt, 0001.json or 0001.cls. */
  path,
  split: shardSplit,
  /** Extension of the picture if a sample has several, such as `input.png`. */
  image: z.string().min(1).optional(),
  /** The field of the .json files with captions, if there are no .txt files; `text` or `caption` by default. */
  caption: column.optional(),
  /** True if the numbers in .cls files are classes. */
  label: z.boolean().default(true),
  classes: classNames,
  undescribed,
  ...fittingFields,
  ...stillFields,
});

/** Captioned emoji in several drawing styles, from npm packages. */
export const emojiSchema = z.strictObject({
  kind: z.literal("emoji"),
  ...emojiFields,
  ...stillFields,
});

export const dataSchema = z.discriminatedUnion("kind", [
  images,
  clips,
  idx,
  parquet,
  tar,
  emojiSchema,
]);

/** One of the two parts of a data set that is divided by the names of its pictures. */
export interface DataPart {
  /** The share of the pictures that is held out, in (0, 1). */
  readonly share: number;
  /** "held" for what is held out, "rest" for the others. */
  readonly of: "held" | "rest";
  /** The most pictures of the part; all by default. */
  readonly limit?: number;
}

export type DataConfig = z.output<typeof dataSchema> & {
  /** The part of the data set that is read; all of it by default. */
  readonly part?: DataPart;
};

/** The config of one kind of data set. */
export type DataConfigOf<K extends DataConfig["kind"]> = Extract<DataConfig, { kind: K }>;

/** The data set, or the part of it, with at most so many pictures at even distances. */
export function limitedTo(data: DataConfig, most: number): DataConfig {
  const { part, limit = most } = data;
  return part
    ? { ...data, part: { ...part, limit: most } }
    : { ...data, limit: Math.min(limit, most) };
}
