/** A training as the page describes it, wherever it is done. */
import type { Picture } from "../../../src/pictures/picture.ts";
import type { DrawnPicture } from "../../../src/pipelines/index.ts";

export interface TrainingPlan {
  readonly name: string;
  /** Pictures of one size, each with a caption; no captions for a model without prompts. */
  readonly pictures: readonly (Picture & { readonly caption: string })[];
  readonly captioned: boolean;
  readonly hidden: number;
  readonly depth: number;
  readonly patch: number;
  readonly steps: number;
  readonly batch: number;
  readonly rate: number;
  /** Steps between pictures that are drawn with the same seeds. */
  readonly sampleEvery: number;
  readonly prompts: readonly string[];
}

export interface TrainingStep {
  readonly step: number;
  readonly loss: number;
  readonly secondsLeft: number;
  readonly imagesPerSecond: number;
}

export interface TrainingSample {
  readonly step: number;
  readonly pictures: readonly DrawnPicture[];
}

/** The network and how it is trained, the same in the page and on a server. */
export function settingsOfPlan({ captioned, hidden, depth, patch, ...plan }: TrainingPlan) {
  const { steps, batch, rate } = plan;
  return {
    network: { hidden, depth, patch, ...(captioned && { prompt: { length: 8, depth: 1 } }) },
    steps,
    batch,
    optimizer: { kind: "muon" as const, rate },
    // The average over the last fiftieth of the training, at most 500 steps.
    ema: 1 - 1 / Math.min(500, Math.max(4, steps / 20)),
    unknownWords: "keep" as const,
  };
}
