/** Reads MNIST and other data sets in its IDX format: arrays of bytes after a header of big-endian sizes. */
import { readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import { readRegularFile } from "../../weights/sources/read-node.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { type DataConfigOf } from "../config.ts";
import { type PictureShape } from "../../pictures/picture.ts";
import { type DataSet } from "../dataset.ts";
import { fitPicture } from "../../pictures/decode-node.ts";

type Config = DataConfigOf<"idx">;

const fashion = [
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
] as const;

// The largest set of this family, EMNIST, takes half a gigabyte, so a larger file is none of them.
const MAX_BYTES = 2 ** 31;

/** The prefixes of a split's files. MNIST calls its test images t10k. */
const prefixes = { train: ["train"], test: ["t10k", "test"] } as const;

/** @throws UsageError if the files do not exist; FormatError if they are damaged or do not belong together */
export async function openIdx(config: Config, shape: PictureShape): Promise<DataSet> {
  const files = await findFiles(config);
  const images = parseIdx(await readWhole(files.images), 3, files.images);
  const labels = parseIdx(await readWhole(files.labels), 1, files.labels);
  const [count, height, width] = images.shape as [number, number, number];
  if (labels.data.length !== count) {
    throw new FormatError(
      `${files.images} has ${count} images, but ${files.labels} has ${labels.data.length} labels; they do not belong together.`,
    );
  }
  if (images.data.length === 0) throw new FormatError(`${files.images} holds no pixels.`);
  const classes = config.classes ?? classNames(config.path, labels);
  const unnamed = labels.data.findIndex((label) => label >= classes.length);
  if (unnamed !== -1) {
    throw new FormatError(
      `${files.labels} has the label ${labels.data[unnamed]} for image ${unnamed}, but there are names for ${classes.length} classes only; give \`classes\` a name for each.`,
    );
  }
  return {
    name: config.path,
    count,
    classes,
    captioned: false,
    memory: images.data.length + labels.data.length,
    nameOf: (index) => `image ${index} of ${files.images}`,
    described: async (index) => ({ label: labels.data[index]!, captions: [] }),
    example: async (index) => {
      const pixels = images.data.subarray(index * height * width, (index + 1) * height * width);
      return {
        pixels: await fit({ pixels, height, width, channels: 1 }, shape, config),
        label: labels.data[index]!,
        captions: [],
      };
    },
    close: async () => {},
  };
}

function classNames(path: string, labels: IdxArray): readonly string[] {
  if (/fashion/i.test(basename(resolve(path)))) return fashion;
  // Digits have ten classes, and the sets of letters in the same format have more.
  const highest = labels.data.reduce((a, b) => Math.max(a, b), 9);
  return Array.from({ length: highest + 1 }, (_, label) => String(label));
}

async function findFiles({ path, split }: Config): Promise<{ images: string; labels: string }> {
  const entries = await readdir(path).catch((error: unknown) => {
    const debian = path.startsWith("/usr/share/datasets/")
      ? ", or install Debian's package dataset-fashion-mnist"
      : "";
    throw new UsageError(
      `Cannot open the IDX folder ${path}: ${describeSystemError(error)}; set \`path\` to a folder with MNIST's four files${debian}.`,
      { cause: error },
    );
  });
  const find = (what: "images" | "labels") => {
    const axes = what === "images" ? 3 : 1;
    // Mirrors name them train-images-idx3-ubyte or train-images.idx3-ubyte.
    const pattern = new RegExp(
      `^(?:${prefixes[split].join("|")})-${what}[-.]idx${axes}-ubyte(?:\\.gz)?$`,
    );
    // Sorting puts the shorter name first, which needs no decompression.
    const [found] = entries.filter((name) => pattern.test(name)).sort();
    if (found !== undefined) return join(path, found);
    throw new UsageError(
      `${path} has no ${prefixes[split][0]}-${what}-idx${axes}-ubyte or .gz, which the split "${split}" needs; set \`path\` to a folder with MNIST's four files.`,
    );
  };
  return { images: find("images"), labels: find("labels") };
}

async function readWhole(path: string): Promise<Uint8Array> {
  const bytes = await readRegularFile(path).catch((error: unknown) => {
    throw new PatchwiseError(`Cannot read ${path}: ${describeSystemError(error)}.`, {
      cause: error,
    });
  });
  if (!path.endsWith(".gz")) return bytes;
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: MAX_BYTES });
  } catch (cause) {
    throw new FormatError(
      `${path} cannot be decompressed: ${(cause as Error).message}; download it again.`,
      { cause },
    );
  }
}

interface GreyPicture {
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
  readonly channels: 1;
}

async function fit(picture: GreyPicture, shape: PictureShape, config: Config): Promise<Uint8Array> {
  const { height, width } = shape;
  if (picture.height === height && picture.width === width) {
    return spread(picture.pixels, shape.channels);
  }
  if (config.fit !== "pad") {
    return fitPicture(picture, shape, { fit: config.fit, background: config.background });
  }
  return spread(padded(picture, height, width, greyOf(config.background)), shape.channels);
}

/** Centres the picture in a larger one, or crops it evenly if the target is smaller. */
function padded(picture: GreyPicture, height: number, width: number, fill: number): Uint8Array {
  const pixels = new Uint8Array(height * width).fill(fill);
  const top = Math.floor((height - picture.height) / 2);
  const left = Math.floor((width - picture.width) / 2);
  for (let y = Math.max(0, top); y < Math.min(height, top + picture.height); y++) {
    const from = (y - top) * picture.width + Math.max(0, -left);
    const length = Math.min(picture.width, width);
    pixels.set(picture.pixels.subarray(from, from + length), y * width + Math.max(0, left));
  }
  return pixels;
}

/** The luma of a colour that the schema accepts (ITU-R BT.601). */
function greyOf(background: string): number {
  const name = background.toLowerCase();
  if (name === "white") return 255;
  if (name === "black") return 0;
  const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(name.slice(at, at + 2), 16));
  return Math.round(0.299 * r! + 0.587 * g! + 0.114 * b!);
}

/** Copies grey pixels into each of the channels. */
function spread(grey: Uint8Array, channels: 1 | 3): Uint8Array {
  if (channels === 1) return Uint8Array.from(grey);
  return new Uint8Array(3 * grey.length).map((_, i) => grey[Math.floor(i / 3)]!);
}

/** The third byte of the magic number if the elements are unsigned bytes. */
const UNSIGNED_BYTE = 0x08;

export interface IdxArray {
  readonly shape: readonly number[];
  /** Row-major; a view of the parsed bytes. */
  readonly data: Uint8Array;
}

/**
 * Parses an array of unsigned bytes: images [count, height, width] or labels [count].
 *
 * @param rank the expected number of axes
 * @param name how errors name the file
 * @throws FormatError unless the header has `rank` axes of unsigned bytes, and exactly their bytes follow
 */
export function parseIdx(bytes: Uint8Array, rank: number, name: string): IdxArray {
  const header = 4 + 4 * rank;
  const [zero0, zero1, type, axes] = bytes;
  if (bytes.length < 4 || zero0 !== 0 || zero1 !== 0) {
    throw new FormatError(`${name} is not an IDX file: it does not begin with two zero bytes.`);
  }
  if (type !== UNSIGNED_BYTE) {
    throw new FormatError(
      `${name} holds elements of type 0x${type!.toString(16).padStart(2, "0")}; only unsigned bytes (0x08) are read.`,
    );
  }
  if (axes !== rank) {
    throw new FormatError(
      `${name} has ${axes} axes, but ${rank} were expected; images and labels may be mixed up.`,
    );
  }
  if (bytes.length < header) throw new FormatError(`${name} ends inside its header.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  // The product is at most 2^96 and may be inexact, but a value that equals the length of a file is exact.
  const size = shape.reduce((product, length) => product * length, 1);
  if (size !== bytes.length - header) {
    throw new FormatError(
      `${name} declares ${shape.join("×")} bytes, but ${bytes.length - header} follow its header; download it again.`,
    );
  }
  return { shape, data: bytes.subarray(header) };
}
