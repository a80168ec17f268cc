/** Pictures in memory, and their conversion to and from the tensors that networks work on. */
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { PatchwiseError } from "../engine/errors.ts";
import { type OptionKind, requireKind } from "../engine/options.ts";

/** The size and channels that pictures are converted to: 3 channels for sRGB colour, 1 for grey. */
export interface PictureShape {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
}

/** The shape of a clip, or of a picture. */
export interface FramesShape extends PictureShape {
  /** Number of frames of a clip, at least 1; pictures leave it out. */
  readonly frames?: number | undefined;
}

/** Frames of one size in memory: a clip, or a picture, which is one frame without an axis of time. */
export interface Frames extends FramesShape {
  /** [frames, height, width, channels] or [height, width, channels], row-major, sRGB or grey values from 0 to 255. */
  readonly pixels: Uint8Array;
}

/** A picture in memory. */
export interface Picture extends Frames {
  readonly frames?: undefined;
}

/** Returns true if a value is a `Picture` with all of its bytes. */
export function isPicture(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { width, height, channels, pixels } = value as Picture;
  return (
    (channels === 1 || channels === 3) &&
    pixels instanceof Uint8Array &&
    pixels.length === width * height * channels
  );
}

/** The kind of a picture, as errors describe it. */
export const pictureKind: OptionKind = {
  expected: "a picture: width, height, channels (1 or 3) and one byte for each in pixels",
  accepts: isPicture,
};

/** @throws UsageError if a value is no picture with all of its bytes */
export function requirePicture(of: string, picture: Picture): void {
  requireKind(`${of}: the picture`, picture, pictureKind);
}

/**
 * Converts pixels from 0 to 255 to float32 values in [−1, 1]: [B, H, W, C] → [B, C, H, W], or with a number of frames F
 * [B, F, H, W, C] → [B, C, F, H, W].
 */
export function valuesOf(
  pixels: Uint8Array,
  { height, width, channels, frames }: FramesShape,
): NdArray<"float32"> {
  const axes = frames === undefined ? [height, width] : [frames, height, width];
  const places = sizeOf(axes);
  const count = pixels.length / (places * channels);
  const values = new Float32Array(pixels.length);
  for (let i = 0; i < count * places; i++) {
    const start = Math.floor(i / places) * places * channels + (i % places);
    for (let c = 0; c < channels; c++) {
      values[start + c * places] = pixels[i * channels + c]! / 127.5 - 1;
    }
  }
  return ndarray("float32", [count, channels, ...axes], values);
}

/**
 * Converts values [B, C, F, H, W] in [−1, 1] to B clips of F frames. Values outside the range are clamped.
 *
 * @throws PatchwiseError if a value is NaN or infinite
 */
export function framesOf(values: NdArray): (Frames & { readonly frames: number })[] {
  const [, , frames, height, width] = values.shape as readonly [number, 1 | 3, ...Three];
  return channelsLast(values).map((clip) => ({ ...clip, frames, height, width }));
}

type Three = readonly [frames: number, height: number, width: number];

/** Converts values [B, C, H, W] in [−1, 1] to B pictures, as `framesOf` does. */
export function picturesOf(values: NdArray): Picture[] {
  const [, , height, width] = values.shape as readonly [number, 1 | 3, number, number];
  return channelsLast(values).map((picture) => ({ ...picture, height, width }));
}

/** Values [B, C, ...places] in [−1, 1] as B arrays of pixels [...places, C] from 0 to 255. */
function channelsLast({ shape, data }: NdArray): Pick<Frames, "channels" | "pixels">[] {
  const [count, channels, ...axes] = shape as readonly [number, 1 | 3, ...number[]];
  const places = sizeOf(axes);
  // Arrays of bytes would take NaN as black.
  if (!(data as Float32Array).every(Number.isFinite)) {
    throw new PatchwiseError(
      "The model drew values that are NaN or infinite, so there is no picture; its weights may be damaged, or a setting such as guidance may be too large.",
    );
  }
  return Array.from({ length: count }, (_, image) => {
    // This array type clamps, and rounds half to even.
    const pixels = new Uint8ClampedArray(places * channels);
    for (let c = 0; c < channels; c++) {
      const start = (image * channels + c) * places;
      for (let i = 0; i < places; i++) {
        pixels[i * channels + c] = (Number(data[start + i]) + 1) * 127.5;
      }
    }
    return { channels, pixels: new Uint8Array(pixels.buffer) };
  });
}

/** Converts a picture or clip to grey (the luma of ITU-R BT.601) or to colour (the grey value in each channel). */
export function withChannels<F extends Frames>(picture: F, channels: 1 | 3): F {
  const { pixels, channels: own } = picture;
  if (own === channels) return picture;
  const count = pixels.length / own;
  const grey = (i: number) =>
    Math.round(0.299 * pixels[i]! + 0.587 * pixels[i + 1]! + 0.114 * pixels[i + 2]!);
  const converted = Uint8Array.from({ length: count * channels }, (_, i) =>
    channels === 1 ? grey(3 * i) : pixels[Math.floor(i / 3)]!,
  );
  return { ...picture, channels, pixels: converted };
}
