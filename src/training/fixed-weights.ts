/** How the step of a training computes with the weights that it does not train, such as the base of a LoRA. */
import { leafName } from "../engine/graph/graph.ts";
import { quantizeLinears } from "../engine/passes/quantize.ts";
import { inlineRecomputed } from "../engine/passes/simplify.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import { weightBytes } from "../engine/runtime/stored-weight.ts";
import type { TrainingStep } from "./step.ts";

/** The most bytes of float32 weights that are packed: packing copies them twice, for the forward and for the backward pass. */
const MOST_PACKED = 2 ** 30;

/** The types of products with fixed weights. */
export const fixedTypes = ["float32", "int8"] as const;

export type FixedType = (typeof fixedTypes)[number];

/**
 * A step whose fixed weights are stored in its programs.
 *
 * @param type "int8" multiplies 8-bit integers, in both passes: weights take half the bytes of float32 (one copy for each pass), and
 * most products less than half the time. The gradient of the rounding counts as 1.
 */
export function withFixedWeights(
  step: TrainingStep,
  fixed: WeightSource,
  type: FixedType,
): TrainingStep {
  const stored = step.graph.parameters.flatMap((leaf) => fixed(leafName(leaf)) ?? []);
  if (stored.length === 0) return step;
  if (type === "float32") {
    const bytes = stored.reduce((sum, weight) => sum + weightBytes(weight), 0);
    return { ...step, stored: { weights: fixed, prepack: bytes <= MOST_PACKED } };
  }
  const { graph, weights } = quantizeLinears(inlineRecomputed(step.graph), fixed);
  return {
    ...step,
    graph,
    stored: { weights, prepack: true },
    halves() {
      const halves = step.halves();
      const own = quantizeLinears(inlineRecomputed(halves.gradient), fixed);
      return { ...halves, gradient: own.graph };
    },
  };
}
