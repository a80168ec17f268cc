/** Resizes pictures by Lanczos' filter of three lobes, in the integers that Pillow computes in, so that results are the same. */
import type { Picture } from "./picture.ts";

/** Lobes of the filter on each side. */
const LOBES = 3;

/** One in the fixed-point numbers of weights. */
const ONE = 2 ** 22;

/** The pixels of the source that a new pixel is a weighted sum of, along one side. */
interface Taps {
  /** The first pixel of the source. */
  readonly first: number;
  /** The weight of it and of those behind it, in units of 1 / ONE. */
  readonly weights: readonly number[];
}

/**
 * Resizes a picture, first across and then down, each to 8 bits, as `Image.resize(size, LANCZOS)` of Pillow does.
 *
 * @param size in pixels, at least 1 each
 */
export function resizedByLanczos(
  picture: Picture,
  { width, height }: { readonly width: number; readonly height: number },
): Picture {
  const across = resizedAcross(picture, width);
  const turned = resizedAcross(transposed(across), height);
  return transposed(turned);
}

function resizedAcross(picture: Picture, width: number): Picture {
  const { width: own, height, channels, pixels } = picture;
  if (width === own) return picture;
  const taps = tapsOf(own, width);
  const resized = new Uint8ClampedArray(width * height * channels);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const { first, weights } = taps[column]!;
      for (let c = 0; c < channels; c++) {
        let sum = ONE / 2;
        const start = (row * own + first) * channels + c;
        for (let i = 0; i < weights.length; i++) {
          sum += weights[i]! * pixels[start + i * channels]!;
        }
        resized[(row * width + column) * channels + c] = Math.floor(sum / ONE);
      }
    }
  }
  return { width, height, channels, pixels: new Uint8Array(resized.buffer) };
}

/** The weights of each pixel along a side of `to` pixels that has `from`. */
function tapsOf(from: number, to: number): readonly Taps[] {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = LOBES * stretch;
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const values = Array.from({ length: end - first }, (_value, j) =>
      lanczos((j + first - center + 0.5) / stretch),
    );
    const sum = values.reduce((total, value) => total + value, 0);
    // Rounds half away from zero.
    const fixed = (value: number) => Math.trunc((value / sum) * ONE + (value < 0 ? -0.5 : 0.5));
    return { first, weights: values.map(fixed) };
  });
}

function lanczos(x: number): number {
  return Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function transposed({ width, height, channels, pixels }: Picture): Picture {
  const turned = new Uint8Array(pixels.length);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let c = 0; c < channels; c++) {
        turned[(column * height + row) * channels + c] =
          pixels[(row * width + column) * channels + c]!;
      }
    }
  }
  return { width: height, height: width, channels, pixels: turned };
}

/** The part of a picture of a size around its centre; what is odd is left at the right and below, as in Pillow's `crop`. */
export function centerCropped(
  { width: own, height: rows, channels, pixels }: Picture,
  { width, height }: { readonly width: number; readonly height: number },
): Picture {
  const [left, top] = [Math.floor((own - width) / 2), Math.floor((rows - height) / 2)];
  const cropped = new Uint8Array(width * height * channels);
  for (let row = 0; row < height; row++) {
    const start = ((row + top) * own + left) * channels;
    cropped.set(pixels.subarray(start, start + width * channels), row * width * channels);
  }
  return { width, height, channels, pixels: cropped };
}
