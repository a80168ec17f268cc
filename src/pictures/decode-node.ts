/** Picture files of any size → pixels of the shape that a network takes. */
import { readFile } from "node:fs/promises";
import sharp, { type Sharp } from "sharp";
import { FormatError, UsageError } from "../engine/errors.ts";
import { describeSystemError } from "../weights/sources/system-error-node.ts";
import type { Fitting } from "./fitting.ts";
import { refuseLfsPointer } from "../weights/sources/lfs-pointer.ts";
import type { Picture, PictureShape } from "./picture.ts";

/** What a file's name ends with when it is a picture that `decodePicture` reads. */
export const pictureExtensions = ["png", "jpg", "jpeg", "webp", "avif", "gif"] as const;

/**
 * Decodes a PNG, JPEG, WebP, AVIF or GIF (of an animation, the first frame), turned upright as its EXIF data say, with
 * colours in sRGB, and brings it to `shape`.
 *
 * @param name how messages call it
 * @returns pixels [height, width, channels]
 * @throws FormatError that names it when it is damaged or no picture
 */
export async function decodePicture(
  bytes: Uint8Array,
  name: string,
  shape: PictureShape,
  fitting: Fitting,
): Promise<Uint8Array> {
  return decoded(bytes, name, (picture) => fitted(picture, shape, fitting));
}

/**
 * Reads a picture file in its own size, in grey if it is grey.
 *
 * @param background what shows where it is transparent
 * @throws UsageError when there is no such file; FormatError as `decodePicture`
 */
export async function readPicture(path: string, background: "white" | "black"): Promise<Picture> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new UsageError(
      `Cannot read the picture ${path}: ${describeSystemError(cause)}; give a picture file.`,
      { cause },
    );
  });
  return decoded(bytes, path, async (picture) => {
    const { space } = await picture.metadata();
    const { data, info } = await picture
      .flatten({ background })
      .toColourspace(space === "b-w" || space === "grey16" ? "b-w" : "srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    const { width, height, channels } = info;
    return { width, height, channels: channels as 1 | 3, pixels: new Uint8Array(data) };
  });
}

async function decoded<T>(
  bytes: Uint8Array,
  name: string,
  use: (picture: Sharp) => Promise<T>,
): Promise<T> {
  if (bytes.length === 0) throw new FormatError(`${name} is empty; fetch it again or remove it.`);
  refuseLfsPointer(bytes, name);
  try {
    // Warnings about oddities that decoders put right by themselves are none of a training run's business.
    return await use(sharp(bytes, { failOn: "error" }).autoOrient());
  } catch (cause) {
    const [reason] = (cause instanceof Error ? cause.message : String(cause)).split("\n");
    throw new FormatError(
      `${name} cannot be read as a picture: ${reason}; fetch it again or remove it.`,
      { cause },
    );
  }
}

/** Brings pixels to `shape`, as `decodePicture` does with those of a file. */
export function fitPicture(
  { pixels, width, height, channels }: Picture,
  shape: PictureShape,
  fitting: Fitting,
): Promise<Uint8Array> {
  return fitted(sharp(pixels, { raw: { width, height, channels } }), shape, fitting);
}

async function fitted(
  picture: Sharp,
  { width, height, channels }: PictureShape,
  { fit, background }: Fitting,
): Promise<Uint8Array> {
  const pixels = await picture
    .flatten({ background })
    .resize(width, height, { fit, background, position: "centre" })
    .toColourspace(channels === 1 ? "b-w" : "srgb")
    .raw({ depth: "uchar" })
    .toBuffer();
  if (pixels.length !== width * height * channels) {
    throw new FormatError(
      `it decodes to ${pixels.length} bytes in place of ${width}×${height}×${channels}`,
    );
  }
  return pixels;
}
