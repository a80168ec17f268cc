/** How a network is computed when it draws: in which numbers, and whether steps are skipped. */
import type { CacheCount, CacheMode } from "../diffusion/step-cache.ts";
import { UsageError } from "../engine/errors.ts";
import type { Graph } from "../engine/graph/graph.ts";
import { quantizeLinears } from "../engine/passes/quantize.ts";
import type { ImageModel, Stage } from "./image-model.ts";

/** "int8" takes the products of the inner linear layers in 8-bit integers, by scales for each channel and each row. */
export const computations = ["float32", "int8"] as const;
export type Computation = (typeof computations)[number];

/** The devices that have kernels for products of 8-bit integers. */
const int8Devices: readonly string[] = ["cpu", "wasm"];

/** @throws UsageError if the device has no kernels for it */
export function checkComputation(compute: Computation | undefined, device: string): void {
  if (compute !== "int8" || int8Devices.includes(device)) return;
  throw new UsageError(
    `compute int8 does not apply to the device ${device}, which has no products of 8-bit integers here; use ${int8Devices.join(" or ")}, or leave it out.`,
  );
}

/** The quantized form of each stage, which must be the same object each time. */
const quantizedStages = new WeakMap<Stage, Stage>();

/** A stage with its inner linear layers in 8-bit integers. */
export function quantizedStage(stage: Stage): Stage {
  const known = quantizedStages.get(stage);
  if (known) return known;
  // Kept as long as a program needs the graph: a model that draws in many sizes would fill the memory with their weights.
  const byGraph = new WeakMap<Graph, ReturnType<typeof quantizeLinears>>();
  let latest: WeakRef<Graph> | undefined;
  const quantized = () => {
    const graph = latest?.deref();
    const made = (graph && byGraph.get(graph)) ?? quantizeLinears(stage.graph(), stage.weights);
    byGraph.set(made.graph, made);
    latest = new WeakRef(made.graph);
    return made;
  };
  const int8: Stage = {
    ...stage,
    graph: () => quantized().graph,
    weights: (name) => quantized().weights(name),
  };
  quantizedStages.set(stage, int8);
  return int8;
}

/** @throws UsageError if the model's network cannot be extrapolated */
export function checkedCache(mode: CacheMode, { name, process }: ImageModel): CacheMode {
  if (mode === "off" || !process.guidesItself) return mode;
  throw new UsageError(
    `cache does not apply to ${name}, whose network predicts whole steps, which do not follow from one another; leave it out.`,
  );
}

/** How far a drawing is. */
export interface DrawingProgress {
  /** Number of steps that are done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** With the setting `cache`: how many of the network's outputs were asked for so far, and how many of them were not computed. */
  readonly cached?: CacheCount | undefined;
}
