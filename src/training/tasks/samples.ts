/** Samples that a model draws while it is trained. */
import type { Card } from "../../models/card.ts";
import type { TimedClip } from "../../pictures/clip.ts";
import type { Picture } from "../../pictures/picture.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { NetworkConfig } from "../../models/network.ts";
import type { DataSource } from "../loop.ts";
import type { Arrays } from "../step.ts";

/** A grid of samples; for models of clips a contact sheet, and one clip with all samples side by side. */
export interface DrawnSamples extends Picture {
  readonly clip?: TimedClip | undefined;
}

/** Draws samples with a model in training: one row for each prompt or class. */
export type DrawSamples = (
  model: {
    readonly card: Card;
    readonly weights: Arrays;
    readonly tokenizer: Tokenizer | undefined;
    /** The open autoencoder of a model of latents or codes; the function closes it. */
    readonly autoencoder: Weights | undefined;
  },
  samples: {
    /** Prompts or classes, a row for each; undefined for a network that takes neither. */
    readonly of: readonly string[] | undefined;
    /** Pictures of each. */
    readonly each: number;
    readonly seed: number;
  },
) => Promise<DrawnSamples>;

/** Prompts or classes of the data that show what a training has learned. */
export function sampledConditions(
  { condition }: NetworkConfig,
  { info, survey }: DataSource,
): readonly string[] | undefined {
  if (condition.kind === "none") return undefined;
  if (condition.kind === "class") return info.classes?.slice(0, 10);
  const captions = new Set(survey?.captions.filter((caption) => caption !== ""));
  return captions.size > 0 ? [...captions].slice(0, 4) : [""];
}
