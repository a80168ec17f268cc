/** What an exported file says of itself, so that a program can draw with it that knows nothing else of the model. */
import { type Parameterization, x0Weights } from "../diffusion/parameterization.ts";
import { takesStart } from "../models/network.ts";
import type { ImageModel, LatentDecoder } from "./image-model.ts";

const predictions: Readonly<Record<Parameterization, string>> = {
  epsilon: "the noise",
  x0: "the clean picture x0",
  v: "alpha * noise - sigma * x0",
  flow: "noise - x0",
};

/**
 * Texts on the network of a model, by key. Numbers, lists and objects are JSON.
 *
 * @param size height and width of the network's input
 */
export function networkMetadata(
  { name, network, process, classes, encoder, decoder, defaults }: ImageModel,
  size: readonly [height: number, width: number],
): Record<string, string> {
  const { predicts, noiseScale = 1 } = process;
  const { condition, learnedVariance, prompt, frames } = network;
  const names = classes && [...classes].toSorted(([, a], [, b]) => a - b).map(([each]) => each);
  return {
    name,
    x: decoder
      ? latentsText(decoder)
      : `pixels in [-1, 1]; axes are batch, channel,${frames === undefined ? "" : " frame,"} row, column`,
    t: "the time of the level in the schedule",
    output: predicts ? predictions[predicts] : "logits of the clean tokens",
    ...(learnedVariance && {
      variance: "the second half of the output's channels; draw without it",
    }),
    ...(takesStart(network) && {
      start: "the frames of a longer clip before this one, 0 for a clip by itself",
    }),
    ...(names && { classes: JSON.stringify(names) }),
    ...(condition.kind === "class" &&
      condition.nullClass && { nullClass: String(condition.classes) }),
    ...(encoder?.tokenizer && {
      tokenizer: JSON.stringify(encoder.tokenizer),
      promptLength: String(prompt?.length),
    }),
    guidance: JSON.stringify(defaults.guidance),
    ...(predicts && { noiseScale: JSON.stringify(noiseScale) }),
    schedule: JSON.stringify(
      process.levels(defaults.steps, { size, frames }).map(({ time, alpha, sigma }) => ({
        t: time,
        alpha,
        sigma,
        ...(predicts && { x0: x0Weights(predicts, { alpha, sigma }) }),
      })),
    ),
  };
}

/** Texts on the decoder of a model, by key. */
export function decoderMetadata({ name, decoder }: ImageModel): Record<string, string> {
  return {
    name,
    latents: decoder ? latentsText(decoder) : "none",
    output: "pixels in [-1, 1]; axes are batch, channel, row, column",
  };
}

function latentsText({ kind }: LatentDecoder): string {
  return kind === "vq"
    ? "indices of codes; axes are batch, row, column"
    : "latents as the network sees them; the exported decoder undoes their scale and shift";
}
