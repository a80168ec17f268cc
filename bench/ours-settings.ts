/** How ours computes in the suites that take `Settings`. */
import type { Conditions, Network } from "../src/diffusion/denoiser.ts";
import type { NoiseLevel } from "../src/diffusion/levels.ts";
import {
  type CacheCount,
  cachedNetwork,
  cacheLimits,
  type CacheMode,
  pickAll,
} from "../src/diffusion/step-cache.ts";
import type { Graph } from "../src/engine/graph/graph.ts";
import { type QuantizedGraph, quantizeLinears } from "../src/engine/passes/quantize.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";
import type { Computation } from "../src/pipelines/compute.ts";
import type { StepResult } from "./contender.ts";

export function computedWith(
  compute: Computation,
  graph: Graph,
  weights: WeightSource,
): QuantizedGraph {
  return compute === "int8" ? quantizeLinears(graph, weights) : { graph, weights };
}

/** A network under conditions, with a cache where one is asked for, which adds to `count`. */
export function networkUnder(
  cache: CacheMode,
  network: (conditions: Conditions) => Network,
  conditions: Conditions,
  levels: readonly NoiseLevel[],
  count: CacheCount,
): Network {
  if (cache === "off") return network(conditions);
  const limits = { ...cacheLimits[cache], last: levels.at(-2)!.time };
  return cachedNetwork((rows) => network(pickAll(conditions, rows)), limits, count);
}

/** The outputs asked for and skipped between two counts, as a part of a step's result; empty if none were counted. */
export function skippedSince(before: CacheCount, now: CacheCount): Pick<StepResult, "skipped"> {
  const asked = now.asked - before.asked;
  return asked === 0 ? {} : { skipped: { asked, reused: now.reused - before.reused } };
}
