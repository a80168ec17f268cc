/** The image that a drawing starts from: image-to-image, and inpainting where there is a mask. */
import { type Picture, valuesOf, withChannels } from "../pictures/picture.ts";
import { stackRows } from "../diffusion/arrays.ts";
import { UsageError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { codecShape } from "../models/coders/image-codec.ts";
import type { ImageModel, RunStage, Stages } from "./image-model.ts";
import type { GenerateRequest } from "./settings.ts";

/**
 * Checks that image, mask, strength and size of a picture fit one another.
 *
 * @throws UsageError if a mask or strength has no image, or a size differs
 */
export function checkGivenImage(
  { image, mask, strength }: Pick<GenerateRequest, "image" | "mask" | "strength">,
  { width, height }: { readonly width: number; readonly height: number },
): void {
  if (!image) {
    if (strength === undefined && !mask) return;
    throw new UsageError(
      `${mask ? "A mask" : `A strength of ${strength}`} needs an image; give the image too, or leave it out.`,
    );
  }
  if (image.height !== height || image.width !== width) {
    throw new UsageError(
      `The image has ${image.width}×${image.height} pixels, but width and height ask for ${width}×${height}; resize the image, or leave the size out.`,
    );
  }
  if (mask && (mask.height !== image.height || mask.width !== image.width)) {
    throw new UsageError(
      `The mask has ${mask.width}×${mask.height} pixels, but its image has ${image.width}×${image.height}; give a mask of the image's size.`,
    );
  }
}

/** An image as the network sees it. */
export interface GivenImage {
  /** One row for each picture, as the network draws them. */
  readonly latents: NdArray;
  /** The mask in the shape of the latents, in [0, 1], where 0 keeps the image; undefined if there is none. */
  readonly mask: NdArray | undefined;
  /** Puts the image's own pixels where the mask is black. */
  readonly finish: (drawn: Picture) => Picture;
}

/**
 * Encodes the image of a request; latents are the means of the encoder.
 *
 * @param shape of the network's input, [count, …, height, width]
 * @returns undefined if the request gives no image
 */
export async function encodeGivenImage(
  { image, mask, signal }: GenerateRequest,
  shape: readonly number[],
  {
    model: { decoder, network },
    stages,
    run,
  }: { model: ImageModel; stages: Stages; run: RunStage },
): Promise<GivenImage | undefined> {
  if (!image) return undefined;
  const channels = decoder ? codecShape(decoder).inputs : network.channels;
  const own = withChannels(image, channels as 1 | 3);
  const pixels = valuesOf(own.pixels, own); // [1, C, H, W]
  const encoder = stages.imageEncoder([image.height, image.width]);
  const latents = encoder
    ? (await run(encoder, { images: pixels }, signal ? { signal } : {}))["latents"]!
    : pixels;
  return {
    latents: stackRows(new Array<NdArray>(shape[0]!).fill(latents)),
    mask: mask && maskFor(mask, shape),
    finish: (drawn) => (mask ? pasted(drawn, own, mask) : drawn),
  };
}

/** The mask in the shape of the network's input, in [0, 1]. A latent or token has the largest value of its pixels. */
function maskFor(mask: Picture, shape: readonly number[]): NdArray<"float32"> {
  const [height, width] = shape.slice(-2) as [number, number];
  const shares = sharesOf(mask);
  const [down, across] = [mask.height / height, mask.width / width];
  const plane = new Float32Array(height * width);
  for (const [i, share] of shares.entries()) {
    const row = Math.floor(Math.floor(i / mask.width) / down);
    const at = row * width + Math.floor((i % mask.width) / across);
    plane[at] = Math.max(plane[at]!, share);
  }
  const values = new Float32Array(sizeOf(shape));
  for (let start = 0; start < values.length; start += plane.length) values.set(plane, start);
  return ndarray("float32", shape, values);
}

/** Of a picture that is drawn anew, from which on its mask may be the wrong way round. */
const MOST_DRAWN = 0.9;

/** Sentences about a mask that keeps all of its image, nothing, or so little that it may be inverted. */
export function maskWarnings(mask: Picture | undefined): string[] {
  if (!mask) return [];
  const shares = sharesOf(mask);
  if (shares.every((share) => share === 0)) {
    return ["The mask is black everywhere, so nothing is drawn anew; make it white there."];
  }
  if (shares.every((share) => share === 1)) {
    return ["The mask is white everywhere, so nothing of the image is kept; make it black there."];
  }
  const drawn = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  if (drawn > MOST_DRAWN) {
    return [
      `The mask is white, and the picture drawn anew, on ${Math.round(100 * drawn)} % of it; if only the black part was to be drawn, invert the mask.`,
    ];
  }
  return [];
}

/**
 * The mask's brightness of each pixel, from 0 (black) to 1 (white). Programs that write a mask of true and false as numbers have
 * 1 in the place of 255.
 */
function sharesOf({ pixels, channels }: Picture): Float32Array {
  const white = pixels.every((value) => value <= 1) ? 1 : 255;
  return Float32Array.from({ length: pixels.length / channels }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += pixels[i * channels + c]!;
    return sum / (white * channels);
  });
}

/** Blends the drawn picture with the image by the mask. */
function pasted(drawn: Picture, image: Picture, mask: Picture): Picture {
  const shares = sharesOf(mask);
  const { channels } = drawn;
  const pixels = drawn.pixels.map((value, i) => {
    const share = shares[Math.floor(i / channels)]!;
    return Math.round(share * value + (1 - share) * image.pixels[i]!);
  });
  return { ...drawn, pixels };
}
