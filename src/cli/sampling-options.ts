/** Options of how a picture is drawn, beyond those that every drawing has: guidance in detail, and what it begins with. */
import type { Command } from "commander";
import { readPictureFile } from "../pictures/decode-node.ts";
import type { PictureMetadata } from "../pictures/metadata.ts";
import { UsageError } from "../engine/errors.ts";
import type { GenerateRequest } from "../pipelines/pipeline.ts";
import { numberOption, numbersOption, pairOption } from "./options.ts";

export interface SamplingOptions {
  readonly temperature?: readonly [first: number, last: number];
  readonly shift?: number;
  readonly guidanceInterval?: readonly [above: number, upTo: number];
  readonly rescale?: number;
  readonly skipLayers?: readonly number[];
  readonly skipGuidance?: number;
  readonly skipSteps?: readonly [from: number, to: number];
  readonly image?: string;
  readonly strength?: number;
  readonly mask?: string;
}

export function addSamplingOptions(command: Command): Command {
  return command
    .option(
      "--temperature <first,last>",
      "of models of tokens: how freely these are drawn in the first and in the last step",
      pairOption("--temperature"),
    )
    .option(
      "--shift <s>",
      "of a rectified flow's times, above 1 for more steps at high noise; the model's own unless given",
      numberOption("--shift"),
    )
    .option(
      "--guidance-interval <above,upto>",
      "guide only between these ratios of noise to signal",
      pairOption("--guidance-interval"),
    )
    .option(
      "--rescale <share>",
      "from 0 to 1: how far guidance leaves the contrast as it is",
      numberOption("--rescale"),
    )
    .option(
      "--skip-layers <n,n…>",
      "lead away from what Stable Diffusion 3 draws without these layers, such as 7,8,9",
      numbersOption("--skip-layers"),
    )
    .option(
      "--skip-guidance <g>",
      "how far, with --skip-layers; 2.8 unless given",
      numberOption("--skip-guidance"),
    )
    .option(
      "--skip-steps <from,to>",
      "between which shares of the steps, with --skip-layers; 0.01,0.2 unless given",
      pairOption("--skip-steps"),
    )
    .option("--image <file>", "a picture to draw on from, in its size")
    .option(
      "--strength <s>",
      "above 0, to 1: how much of the image is drawn anew; 0.6 unless given, 1 with a mask",
      numberOption("--strength"),
    )
    .option("--mask <file>", "where the image is drawn anew: white on black, of the image's size");
}

type SamplingRequest = Pick<
  GenerateRequest,
  | "temperature"
  | "shift"
  | "guidanceInterval"
  | "rescale"
  | "skipLayers"
  | "image"
  | "strength"
  | "mask"
>;

/**
 * What was typed, and for the rest what a picture says of itself.
 *
 * @throws UsageError when it was drawn on from an image, which it cannot say
 */
export async function samplingRequest(
  options: SamplingOptions,
  recorded: PictureMetadata | undefined,
): Promise<SamplingRequest> {
  const { image, mask } = options;
  if (recorded?.strength !== undefined && image === undefined) {
    throw new UsageError(
      `That picture was drawn on from an image, at a strength of ${recorded.strength}, which it does not hold; give the image too, as --image.`,
    );
  }
  if (recorded?.masked && mask === undefined) {
    throw new UsageError(
      "That picture was drawn in a part of an image, which a mask told; give the mask too, as --mask.",
    );
  }
  return {
    temperature: options.temperature ?? recorded?.temperature,
    shift: options.shift ?? recorded?.shift,
    guidanceInterval: options.guidanceInterval ?? recorded?.guidanceInterval,
    rescale: options.rescale ?? recorded?.rescale,
    skipLayers: skipLayersOf(options, recorded),
    image: image === undefined ? undefined : await readPictureFile(image, "white"),
    strength: options.strength ?? recorded?.strength,
    // Strokes of white on nothing are a mask too.
    mask: mask === undefined ? undefined : await readPictureFile(mask, "black"),
  };
}

function skipLayersOf(
  { skipLayers, skipGuidance, skipSteps }: SamplingOptions,
  recorded: PictureMetadata | undefined,
): GenerateRequest["skipLayers"] {
  const layers = skipLayers ?? recorded?.skipLayers?.layers;
  if (layers) {
    return {
      ...recorded?.skipLayers,
      layers,
      ...(skipGuidance !== undefined && { scale: skipGuidance }),
      ...(skipSteps && { from: skipSteps[0], to: skipSteps[1] }),
    };
  }
  if (skipGuidance === undefined && !skipSteps) return undefined;
  throw new UsageError(
    `${skipSteps ? "--skip-steps" : "--skip-guidance"} was given, but no layers to skip; give them as --skip-layers, such as 7,8,9.`,
  );
}
