/** The time that a comparison takes, estimated before anything is trained. */
import { graphOf } from "../engine/graph/graph.ts";
import { countMultiplyAdds } from "../engine/passes/cost.ts";
import { type ExtractorConfig, traceExtractor } from "../evaluation/extractor.ts";
import { wholeSampling } from "../models/card.ts";
import type { CheckedTraining } from "../training/speed.ts";
import type { Contender } from "./contenders.ts";

/** Seconds that the parts of a comparison take; parts that are finished take none. */
export interface TimeEstimate {
  readonly extractor: number;
  readonly models: readonly ModelTime[];
}

export interface ModelTime {
  readonly name: string;
  readonly training: number;
  readonly drawing: number;
}

/** A contender with its measured speed and its finished parts. */
export interface MeasuredContender extends Pick<Contender, "name" | "config"> {
  readonly checked: CheckedTraining;
  readonly trained: boolean;
  readonly drawn: boolean;
}

/** A backward pass takes as long as two forward passes. */
const PASSES = 3;

/**
 * Estimates from the measured forward passes. The budget gives the time of a training; a drawing takes one pass for each step, and two
 * with guidance; the extractor is assumed to compute as many operations a second as the fastest model.
 *
 * @param count pictures that each model draws
 * @param extractor the network that is trained first, and on how many pictures; undefined if it is finished or not trained
 */
export function estimateTime(
  contenders: readonly MeasuredContender[],
  count: number,
  extractor: { readonly config: ExtractorConfig; readonly images: number } | undefined,
): TimeEstimate {
  const speeds = contenders.map(({ checked }) => checked.multiplyAdds / checked.seconds);
  return {
    extractor: extractor
      ? (PASSES * extractor.images * operationsOf(extractor.config)) / Math.max(...speeds)
      : 0,
    models: contenders.map(({ name, config, checked, trained, drawn }) => {
      const { steps, guidance } = wholeSampling(config.sampling, config.diffusion);
      const passes = steps * (guidance !== 1 && checked.condition !== "none" ? 2 : 1);
      return {
        name,
        training: trained ? 0 : trainingSeconds(config.training, checked),
        drawing: drawn ? 0 : count * passes * checked.seconds,
      };
    }),
  };
}

function operationsOf(config: ExtractorConfig): number {
  const { features, logits = features } = traceExtractor(config);
  return countMultiplyAdds(graphOf({ logits }), 1);
}

function trainingSeconds(
  { minutes, compute }: Contender["config"]["training"],
  { multiplyAdds, seconds }: CheckedTraining,
): number {
  if (minutes !== undefined) return 60 * minutes;
  // The budget counts the backward pass, too, at the multiply-adds of two forward passes.
  return (((compute ?? 0) * 1e12) / multiplyAdds) * seconds;
}
