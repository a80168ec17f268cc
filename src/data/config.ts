/** How a config file names the pictures to train on. */
import { z } from "zod";
import { fittingFields } from "../pictures/fitting.ts";
import { commonFields } from "./common-config.ts";
import { emojiSchema } from "./formats/emoji-config.ts";

const path = z.string().min(1, "a path cannot be empty");

const names = z.array(z.string().min(1)).min(1);

/** A column or field by name, or false where it is not to be used even if it is there. */
const column = z.union([z.string().min(1), z.literal(false)]);

/** Names for labels that are numbers; "0", "1" … unless given. */
const classNames = names.optional();

/** Which files of several splits in one folder: those whose names begin with it, such as train-00000-of-00002. */
const shardSplit = z.string().min(1).optional();

const images = z.strictObject({
  kind: z.literal("images"),
  /**
   * A folder of PNG, JPEG, WebP, AVIF and GIF files, searched with all its sub-folders. Captions come from a
   * metadata.jsonl or metadata.csv (file_name, text) in any folder, or from a .txt file beside each picture, one caption a
   * line; where there are none, the sub-folders are the classes.
   */
  path,
  /** The metadata column with captions; whichever of `text` and `caption` there is unless given. */
  caption: column.optional(),
  /** The metadata column with classes; `label` if there is one unless given. */
  label: column.optional(),
  /** Whether sub-folders are classes; when there are at least two and no metadata or captions unless given. */
  classes: z.boolean().optional(),
  /** What becomes of pictures without a caption or label, where others have one: an error, left out, or kept with none. */
  undescribed: z.enum(["refuse", "skip", "keep"]).default("refuse"),
  ...fittingFields,
  ...commonFields,
});

const idx = z.strictObject({
  kind: z.literal("idx"),
  /** A folder with the IDX files of MNIST, Fashion-MNIST and the like, gzipped or not. */
  path: path.default("/usr/share/datasets/fashion-mnist"),
  split: z.enum(["train", "test"]).default("train"),
  /** Fashion-MNIST's ten where a folder's name has "fashion" in it; "0" … "9" otherwise. */
  classes: classNames,
  /** `pad` puts the picture in the middle at its own size, as 28×28 is often brought to 32×32. */
  fit: z.enum(["cover", "contain", "pad"]).default("cover"),
  background: fittingFields.background.removeDefault().default("black"),
  ...commonFields,
});

const parquet = z.strictObject({
  kind: z.literal("parquet"),
  /** One file, or a folder of shards as Hugging Face serves them. */
  path,
  split: shardSplit,
  /** The column of pictures; found by its type unless given. */
  image: z.string().min(1).optional(),
  /** The column of classes; the one that the file's metadata calls a class label, or `label`, unless given. */
  label: column.optional(),
  /** The column of captions; whichever of `text`, `caption`, `captions` and `prompt` there is unless given. */
  caption: column.optional(),
  classes: classNames,
  ...fittingFields,
  ...commonFields,
});

const tar = z.strictObject({
  kind: z.literal("tar"),
  /** One WebDataset archive, or a folder of shards: 0001.jpg with 0001.txt, 0001.json or 0001.cls. */
  path,
  split: shardSplit,
  /** Extension of the picture where a sample has several, such as `input.png`. */
  image: z.string().min(1).optional(),
  /** The field of the .json with captions, where there is no .txt; `text` or `caption` unless given. */
  caption: column.optional(),
  /** Whether the numbers in .cls are classes; where there are some, unless false. */
  label: z.boolean().default(true),
  classes: classNames,
  ...fittingFields,
  ...commonFields,
});

export const dataSchema = z.discriminatedUnion("kind", [images, idx, parquet, tar, emojiSchema]);

export type DataConfig = z.output<typeof dataSchema>;

/** The config of one kind of data set. */
export type DataConfigOf<K extends DataConfig["kind"]> = Extract<DataConfig, { kind: K }>;
