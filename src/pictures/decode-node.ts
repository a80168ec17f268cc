/** Decodes picture files in Node, in their own size or in the shape that a network takes. */
import type { Sharp } from "sharp";
import { FormatError, UsageError } from "../engine/errors.ts";
import { readRegularFile } from "../weights/sources/read-node.ts";
import { isDamagedJpeg } from "./jpeg-scans.ts";
import { describeSystemError } from "../weights/sources/system-error-node.ts";
import { type ColourSpace, toSrgb } from "./colour-space.ts";
import { fileColourSpace } from "./file-colours-node.ts";
import type { Fitting } from "./fitting.ts";
import { refuseLfsPointer } from "../weights/sources/source.ts";
import { clipOfPictures, type TimedClip } from "./clip.ts";
import { type Picture, type PictureShape, withChannels } from "./picture.ts";
import { type ReadPictureOptions, requireReadable } from "./convert.ts";
import { readApng } from "./apng-node.ts";
import { isAnimatedPng, isPng } from "./png.ts";
import { pngShape } from "./png-node.ts";
import { loadSharp, pictureHeader } from "./sharp-node.ts";

/** The extensions of picture files that `decodePicture` reads. */
export const pictureExtensions = ["png", "jpg", "jpeg", "webp", "avif", "gif"] as const;

/**
 * Decodes a PNG, JPEG, WebP, AVIF or GIF file (the first frame of an animation) and fits it to `shape`. EXIF
 * orientation is applied, and colours are converted to sRGB.
 *
 * @param name how errors name the file
 * @returns pixels [height, width, channels]
 * @throws FormatError if the file is damaged or no picture
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
 * Decodes the bytes of a picture file (PNG, JPEG, WebP, AVIF or GIF) in its own size. A grey picture has 1 channel,
 * and every other one has 3.
 *
 * @throws FormatError if the bytes are damaged or no picture
 */
export async function readPicture(
  bytes: Uint8Array,
  options: ReadPictureOptions = {},
): Promise<Picture> {
  requireReadable(bytes, options);
  const { name = "the picture", background = "white" } = options;
  return decoded(bytes, name, async (picture, grey) => {
    const { data, info } = await picture
      .flatten({ background })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    const { width, height } = info;
    return withChannels({ width, height, channels: 3, pixels: new Uint8Array(data) }, grey ? 1 : 3);
  });
}

/**
 * Reads a picture file as `readPicture` does its bytes.
 *
 * @param background the colour behind transparent pixels
 * @throws UsageError if the file cannot be opened; FormatError as `readPicture`
 */
export async function readPictureFile(
  path: string,
  background: "white" | "black" = "white",
): Promise<Picture> {
  const bytes = await readRegularFile(path).catch((cause: unknown) => {
    throw new UsageError(
      `Cannot read the picture ${path}: ${describeSystemError(cause)}; give a picture file.`,
      { cause },
    );
  });
  return readPicture(bytes, { name: path, background });
}

/**
 * Reads an animated WebP, GIF or PNG file in its own size and in colour, or a still picture as a clip of one frame.
 *
 * @param background the colour behind transparent pixels
 * @throws UsageError if the file cannot be opened; FormatError if it is damaged
 */
export async function readAnimation(
  path: string,
  background: "white" | "black",
): Promise<TimedClip> {
  const bytes = await readRegularFile(path).catch((cause: unknown) => {
    throw new UsageError(
      `Cannot read the clip ${path}: ${describeSystemError(cause)}; give an animated WebP, GIF or PNG file, or a folder of pictures.`,
      { cause },
    );
  });
  return readAnimationBytes(bytes, path, background);
}

/**
 * Decodes an animated WebP, GIF or PNG file as `readAnimation` does.
 *
 * @param path how errors name the file
 * @throws FormatError if it is damaged
 */
export async function readAnimationBytes(
  bytes: Uint8Array,
  path: string,
  background: "white" | "black",
): Promise<TimedClip> {
  if (isPng(bytes) && isAnimatedPng(bytes)) {
    try {
      refuseEmptyPromise(bytes, { format: "png", ...pngShape(bytes, path) });
    } catch (cause) {
      throw unreadable(path, "clip", cause);
    }
    return readApng(bytes, path, background);
  }
  const { pages = 1, delay = [] } = await pictureHeader(bytes).catch(
    (): { pages?: number; delay?: number[] } => ({}),
  );
  if (pages === 1) {
    return {
      clip: clipOfPictures([await readPicture(bytes, { name: path, background })]),
      fps: undefined,
    };
  }
  try {
    const sharp = await loadSharp();
    const { data, info } = await sharp(bytes, { animated: true, failOn: "error" })
      .flatten({ background })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    const duration = delay.reduce((sum, milliseconds) => sum + milliseconds, 0);
    return {
      clip: {
        frames: pages,
        width: info.width,
        height: info.height / pages,
        channels: 3,
        pixels: new Uint8Array(data),
      },
      fps: duration > 0 ? (1000 * pages) / duration : undefined,
    };
  } catch (cause) {
    throw unreadable(path, "clip", cause);
  }
}

function unreadable(name: string, what: "clip" | "picture", cause: unknown): FormatError {
  if (cause instanceof FormatError) return cause;
  const [reason] = (cause instanceof Error ? cause.message : String(cause)).split("\n");
  return new FormatError(
    `${name} cannot be read as a ${what}: ${reason}; download it again or remove it.`,
    { cause },
  );
}

/**
 * Warnings of decoders that a part of the picture is missing. The others are about oddities that they correct, such as an
 * unusual profile, at which a training should not stop.
 */
const lost = /premature end|bad Huffman code|instead of RST|Invalid frame data/;

async function decoded<T>(
  bytes: Uint8Array,
  name: string,
  use: (picture: Sharp, grey: boolean) => Promise<T>,
): Promise<T> {
  if (bytes.length === 0)
    throw new FormatError(`${name} is empty; download it again or remove it.`);
  refuseLfsPointer(bytes, name);
  const sharp = await loadSharp();
  const attempt = async (failOn: "warning" | "error") => {
    const picture = sharp(bytes, { failOn }).autoOrient();
    const { depth, hasProfile, space, format, width, height } = await picture.metadata();
    refuseEmptyPromise(bytes, { format, width, height });
    const grey = space === "b-w" || space === "grey16";
    const colours = fileColourSpace(bytes, hasProfile);
    if (colours) {
      const plain = sharp(bytes, { failOn, ignoreIcc: true }).autoOrient();
      return use(await fromSpace(plain, depth === "uchar" ? "uchar" : "ushort", colours), grey);
    }
    return use(depth === "uchar" ? picture : await inBytes(picture, hasProfile, grey), grey);
  };
  try {
    const picture = await attempt("warning").catch((cause: Error) => {
      if (lost.test(cause.message)) throw cause;
      return attempt("error");
    });
    if (isDamagedJpeg(bytes)) throw new Error("a part of its data is damaged");
    return picture;
  } catch (cause) {
    throw unreadable(name, "picture", cause);
  }
}

/** The most pixels that deflate can put into a byte: of 1 bit each, compressed by 1,032 to 1. */
const PIXELS_A_BYTE = 8 * 1032;
/** Other formats put any number of equal pixels into a byte, which costs little up to so many of them. */
const FEW_PIXELS = 2 ** 24;
/**
 * JPEG and PNG are decoded row by row, so phones' pictures of 200 megapixels are read; the others' decoders keep the whole picture in
 * memory, in up to 8 bytes a pixel.
 */
const mostPixels = (format: string) => 2 ** (format === "jpeg" || format === "png" ? 28 : 27);
/** The longest side that JPEG, WebP and GIF can have, which is more than anybody draws. */
const MOST_SIDE = 65_535;

/** Throws if a header promises more than its file holds, or so much that decoding it would take seconds and gigabytes. */
function refuseEmptyPromise(
  { length }: Uint8Array,
  {
    format,
    width,
    height,
  }: { readonly format: string; readonly width: number; readonly height: number },
): void {
  const pixels = width * height;
  if (pixels > PIXELS_A_BYTE * length && (format === "png" || pixels > FEW_PIXELS)) {
    throw new Error(`its header promises ${pixels} pixels, more than ${length} bytes can hold`);
  }
  if (Math.max(width, height) > MOST_SIDE || pixels > mostPixels(format)) {
    throw new Error(
      `it has ${width}×${height} pixels, but only sides up to ${MOST_SIDE} and ${mostPixels(format)} pixels in all are read`,
    );
  }
}

/**
 * A picture of more than 8 bits a channel in 8 bits of sRGB, before anything else is done to it: rounding comes at one place
 * whatever follows, and sharp, which works on those with a profile in Display P3, would leave its numbers in the pixels.
 */
async function inBytes(picture: Sharp, hasProfile: boolean, grey: boolean): Promise<Sharp> {
  // Of grey pictures, sharp converts those of 8 bits only.
  const converted = (grey ? picture.pipelineColourspace("b-w") : picture).toColourspace("srgb");
  const { data, info } = await (hasProfile ? converted.withIccProfile("srgb") : converted)
    .raw({ depth: "uchar" })
    .toBuffer({ resolveWithObject: true });
  return (await loadSharp())(data, { raw: info });
}

/** A picture of another colour space in 8 bits of sRGB. */
async function fromSpace(
  picture: Sharp,
  depth: "uchar" | "ushort",
  colours: ColourSpace,
): Promise<Sharp> {
  const { data, info } = await picture
    .toColourspace(depth === "uchar" ? "srgb" : "rgb16")
    .raw({ depth })
    .toBuffer({ resolveWithObject: true });
  const values = depth === "uchar" ? data : new Uint16Array(new Uint8Array(data).buffer);
  return (await loadSharp())(toSrgb(values, info.channels, colours), { raw: info });
}

/** Fits a picture to `shape`, as `decodePicture` does with a file. */
export async function fitPicture(
  { pixels, width, height, channels }: Picture,
  shape: PictureShape,
  fitting: Fitting,
): Promise<Uint8Array> {
  const sharp = await loadSharp();
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
    .toColourspace("srgb")
    .raw({ depth: "uchar" })
    .toBuffer();
  if (pixels.length !== width * height * 3) {
    throw new FormatError(`it decodes to ${pixels.length} bytes instead of ${width}×${height}×3`);
  }
  // Grey is the luma of `withChannels` here, too: what sharp computes, the luminance, is another grey.
  return withChannels({ width, height, channels: 3, pixels }, channels).pixels;
}
