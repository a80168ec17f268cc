/** Samples that a model draws while it is trained. */
import type { Card } from "../../models/card.ts";
import type { TimedClip } from "../../pictures/clip.ts";
import type { Picture } from "../../pictures/picture.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
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
    /** Prompts or classes; all classes by default. */
    readonly of?: readonly string[] | undefined;
    /** Pictures of each. */
    readonly each: number;
    readonly seed: number;
  },
) => Promise<DrawnSamples>;
