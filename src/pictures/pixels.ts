/** Pictures as networks see them: channels first, [0, 255] as [−1, 1]. */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import type { Picture, PictureShape } from "./picture.ts";

/** Pixels [B, H, W, C] → float32 [B, C, H, W] in [−1, 1]. */
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

/** The inverse, rounded; what lies outside of [−1, 1] is cut off. */
export function picturesOf(values: NdArray): Picture[] {
  const [count, channels, height, width] = values.shape as readonly [number, 1 | 3, number, number];
  const plane = height * width;
  return Array.from({ length: count }, (_, image) => {
    // Clamps, and rounds half to even.
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

/** A picture in grey or in colour; of colours, grey has their luma (ITU-R BT.601). */
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
