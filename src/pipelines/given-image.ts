/** Pictures to draw on from: image-to-image and inpainting. */
import type { Picture } from "../pictures/picture.ts";
import { valuesOf, withChannels } from "../pictures/picture.ts";
import { stackRows } from "../diffusion/arrays.ts";
import { UsageError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { codecShape } from "../models/coders/image-codec.ts";
import type { ImageModel, RunStage } from "./image-model.ts";
import type { GenerateRequest } from "./pipeline.ts";
import type { Stages } from "./stages.ts";

/** Of an image without a mask; with one, the part within is drawn anew. */
const defaultStrength = 0.6;

/**
 * The strength of a request, which is undefined where it gives no image.
 *
 * @throws UsageError when strength, image and mask do not go together
 */
export function strengthOf({ image, mask, strength, size }: GenerateRequest): number | undefined {
  if (!image) {
    const without =
      strength !== undefined ? `a strength of ${strength}` : mask ? "a mask" : undefined;
    if (without === undefined) return undefined;
    throw new UsageError(
      `There is ${without}, but no image that it could be of; give the image too, or leave it out.`,
    );
  }
  checkPixels(image, "image");
  if (size && (image.height !== size[0] || image.width !== size[1])) {
    throw new UsageError(
      `The image has ${shown(image)} pixels, but a picture of ${size[1]}×${size[0]} was asked for; bring the image to that size, or leave the size out.`,
    );
  }
  if (mask) {
    checkPixels(mask, "mask");
    if (mask.height !== image.height || mask.width !== image.width) {
      throw new UsageError(
        `The mask has ${shown(mask)} pixels, but its image has ${shown(image)}; give a mask of the image's size.`,
      );
    }
  }
  const decided = strength ?? (mask ? 1 : defaultStrength);
  if (decided > 0 && decided <= 1) return decided;
  throw new UsageError(
    `The strength ${decided} is not one; give a number above 0, where the image stays as it is, up to 1, where all of it is drawn anew.`,
  );
}

function checkPixels({ pixels, width, height, channels }: Picture, what: string): void {
  if (pixels.length === width * height * channels) return;
  throw new UsageError(
    `The ${what} of ${width}×${height} pixels in ${channels} channels has ${pixels.length} bytes; give ${width * height * channels}.`,
  );
}

function shown({ width, height }: Picture): string {
  return `${width}×${height}`;
}

/** What is given of what is drawn. */
interface GivenImage {
  /** As the network sees it, a row for each picture. */
  readonly latents: NdArray;
  /** Of the same shape, in [0, 1]: how much is drawn anew. */
  readonly mask: NdArray | undefined;
  /** Puts the image's own pixels where the mask is black. */
  readonly finish: (drawn: Picture) => Picture;
}

/** The image of a request, if it has one, for what the network draws in a shape [count, …, height, width]; latents are the encoder's means. */
export async function givenImage(
  { image, mask, signal }: GenerateRequest,
  shape: readonly [count: number, ...of: number[]],
  {
    model,
    stages,
    run,
  }: { readonly model: ImageModel; readonly stages: Stages; readonly run: RunStage },
): Promise<GivenImage | undefined> {
  if (!image) return undefined;
  const { decoder, network } = model;
  const own = withChannels(
    image,
    (decoder ? codecShape(decoder).inputs : network.channels) as 1 | 3,
  );
  const pixels = valuesOf(own.pixels, own); // [1, C, H, W]
  const encoder = stages.imageEncoder([image.height, image.width]);
  const latents = encoder
    ? (await run(encoder, { images: pixels }, signal ? { signal } : {}))["latents"]!
    : pixels;
  return {
    latents: stackRows(new Array<NdArray>(shape[0]).fill(latents)),
    mask: mask && maskFor(mask, shape),
    finish: (drawn) => (mask ? pasted(drawn, own, mask) : drawn),
  };
}

/**
 * A mask for what the network draws, of its shape, in [0, 1]. A latent, or token, is drawn anew as much as the pixel of it
 * that is so most.
 */
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

/** How much of each pixel is drawn anew. */
function sharesOf({ pixels, channels }: Picture): Float32Array {
  return Float32Array.from({ length: pixels.length / channels }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += pixels[i * channels + c]!;
    return sum / (255 * channels);
  });
}

/** What was drawn, with the image's own pixels where the mask is black. */
function pasted(drawn: Picture, image: Picture, mask: Picture): Picture {
  const shares = sharesOf(mask);
  const { channels } = drawn;
  const pixels = drawn.pixels.map((value, i) => {
    const share = shares[Math.floor(i / channels)]!;
    return Math.round(share * value + (1 - share) * image.pixels[i]!);
  });
  return { ...drawn, pixels };
}
