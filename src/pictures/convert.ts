/** Converts pictures to and from what the web platform works with: Blobs, ImageData and picture files. */
import { DeviceError, FormatError } from "../engine/errors.ts";
import { kinds, type OptionKind, requireKind, requireOptions } from "../engine/options.ts";
import { type Picture, requirePicture, withChannels } from "./picture.ts";
import { isPng, toPng } from "./png.ts";

/** RGBA pixels as a canvas takes them; in a browser, an `ImageData`. */
export interface PixelData {
  readonly width: number;
  readonly height: number;
  /** [height, width, 4], row-major; every pixel is opaque. */
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  readonly colorSpace: "srgb" | "display-p3";
}

/** The formats of `toBlob`. PNG is lossless; browsers encode JPEG and WebP with loss. */
export type BlobType = (typeof blobTypes)[number];

const blobTypes = ["image/png", "image/jpeg", "image/webp"] as const;

/** How `readPicture` reads. */
export interface ReadPictureOptions {
  /** How errors name the picture; "the picture" by default. */
  readonly name?: string;
  /** The colour behind transparent pixels; white by default. */
  readonly background?: "white" | "black";
}

/** One of some words. */
function oneOf(words: readonly string[]): OptionKind {
  return {
    expected: words.join(" or "),
    accepts: (value) => typeof value === "string" && words.includes(value),
  };
}

/** @throws UsageError for a type that `toBlob` does not write */
export function requireBlobType(type: BlobType): void {
  requireKind("toBlob: the type", type, oneOf(blobTypes));
}

/** @throws UsageError for what `readPicture` does not take */
export function requireReadable(bytes: Uint8Array, options: ReadPictureOptions): void {
  requireKind("readPicture: the content of the file", bytes, {
    expected: "a Uint8Array of its bytes",
    accepts: (value) => value instanceof Uint8Array,
  });
  requireOptions("readPicture", options, {
    name: kinds.text,
    background: oneOf(["white", "black"]),
  });
}

/**
 * Converts a picture to an `ImageData`, or in Node, which has none, to an object of the same fields.
 *
 * @example canvas.getContext("2d").putImageData(toImageData(picture), 0, 0);
 */
export function toImageData(picture: Picture): PixelData {
  requirePicture("toImageData", picture);
  const { width, height } = picture;
  const { pixels } = withChannels(picture, 3);
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data[4 * i + c] = pixels[3 * i + c]!;
    data[4 * i + 3] = 255;
  }
  if (typeof ImageData === "undefined") return { width, height, data, colorSpace: "srgb" };
  return new ImageData(data, width, height);
}

/**
 * Encodes a picture as a Blob.
 *
 * @param type PNG by default, which is lossless
 * @example image.src = URL.createObjectURL(await toBlob(picture));
 * @throws DeviceError if the browser cannot encode the type; UsageError if there is no such type
 */
export async function toBlob(picture: Picture, type: BlobType = "image/png"): Promise<Blob> {
  requireBlobType(type);
  if (type === "image/png") return new Blob([await toPng(picture)], { type });
  const canvas = canvasOf(picture.width, picture.height);
  canvas.context.putImageData(toImageData(picture), 0, 0);
  const blob = await canvas.element.convertToBlob({ type, quality: 0.95 });
  if (blob.type === type) return blob;
  throw new DeviceError(`This browser cannot encode ${type}; use image/png.`);
}

/**
 * Decodes a picture file of a format that the browser knows: PNG, JPEG, WebP and usually AVIF and GIF. EXIF
 * orientation is applied. A grey PNG has 1 channel, and every other picture has 3.
 *
 * @param bytes the content of the file
 * @throws FormatError if the bytes are damaged or no picture
 */
export async function readPicture(
  bytes: Uint8Array,
  options: ReadPictureOptions = {},
): Promise<Picture> {
  requireReadable(bytes, options);
  const { name = "the picture", background = "white" } = options;
  const bitmap = await bitmapOf(bytes, name);
  const { width, height } = bitmap;
  const { context } = canvasOf(width, height);
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const channels = isGreyPng(bytes) ? 1 : 3;
  const pixels = new Uint8Array(width * height * channels);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = data[4 * Math.floor(i / channels) + (i % channels)]!;
  }
  return { width, height, channels, pixels };
}

async function bitmapOf(bytes: Uint8Array, name: string): Promise<ImageBitmap> {
  requireWeb("createImageBitmap");
  try {
    // A Blob takes no view of shared memory, so the bytes are copied.
    const content = new Blob([Uint8Array.from(bytes)]);
    return await createImageBitmap(content, { premultiplyAlpha: "none" });
  } catch (cause) {
    throw new FormatError(
      `${name} cannot be decoded (${(cause as Error).message}); give a PNG, JPEG or WebP file.`,
      { cause },
    );
  }
}

function canvasOf(
  width: number,
  height: number,
): { readonly element: OffscreenCanvas; readonly context: OffscreenCanvasRenderingContext2D } {
  requireWeb("OffscreenCanvas");
  const element = new OffscreenCanvas(width, height);
  const context = element.getContext("2d");
  if (context) return { element, context };
  throw new DeviceError(
    `This browser gives no canvas of ${width}×${height} pixels; use a smaller picture.`,
  );
}

function requireWeb(name: "OffscreenCanvas" | "createImageBitmap"): void {
  if (name in globalThis) return;
  throw new DeviceError(
    `This runtime has no ${name}; in Node, import readPicture and toBlob from "patchwise/pictures/node".`,
  );
}

/** Byte 25 of a PNG file is its colour type: 0 is grey, and 4 grey with alpha. */
function isGreyPng(bytes: Uint8Array): boolean {
  return isPng(bytes) && (bytes[25] === 0 || bytes[25] === 4);
}
