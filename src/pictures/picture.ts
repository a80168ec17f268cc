/** Pictures in memory, and their conversion to and from the tensors that networks work on. */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";

/** The size and channels that pictures are converted to: 3 channels for sRGB colour, 1 for grey. */
export interface PictureShape {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
}

/** A picture in memory. */
export interface Picture extends PictureShape {
  /** [height, width, channels], row-major, sRGB or grey values from 0 to 255. */
  readonly pixels: Uint8Array;
}

/** Converts pixels [B, H, W, C] from 0 to 255 to float32 [B, C, H, W] in [−1, 1]. */
export function valuesOf(
  pixels: Uint8Array,
  { height, width, channels }: PictureShape,
): NdArray<"float32"> {
  const plane = height * width;
  const count = pixels.length / (plane * channels);
  const values = new Float32Array(pixels.length);
  for (let i = 0; i < count * plane; i++) {
    const start = Math.floor(i / plane) * plane * channels + (i % plane);
    for (let c = 0; c < channels; c++) {
      values[start + c * plane] = pixels[i * channels + c]! / 127.5 - 1;
    }
  }
  return ndarray("float32", [count, channels, height, width], values);
}

/** Converts values [B, C, H, W] in [−1, 1] to B pictures. Values outside the range are clamped. */
export function picturesOf(values: NdArray): Picture[] {
  const [count, channels, height, width] = values.shape as readonly [number, 1 | 3, number, number];
  const plane = height * width;
  return Array.from({ length: count }, (_, image) => {
    // This array type clamps, and rounds half to even.
    const pixels = new Uint8ClampedArray(plane * channels);
    for (let c = 0; c < channels; c++) {
      const start = (image * channels + c) * plane;
      for (let i = 0; i < plane; i++) {
        pixels[i * channels + c] = (Number(values.data[start + i]) + 1) * 127.5;
      }
    }
    return { width, height, channels, pixels: new Uint8Array(pixels.buffer) };
  });
}

/** Converts a picture to grey (the luma of ITU-R BT.601) or to colour (the grey value in each channel). */
export function withChannels(picture: Picture, channels: 1 | 3): Picture {
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
