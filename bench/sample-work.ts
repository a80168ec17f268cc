/**
 * The work of the suite `sample`: pictures drawn by a DiT-S/2 (Peebles & Xie, 2022; `ditPresets` in
 * `src/models/dit.ts`), class-conditional, with adaLN-zero blocks and learned variance, on latents [4, 32, 32], in
 * float32. For each batch B of `batches`:
 *
 *     x = noise                                                                        [B, 4, 32, 32]
 *     for i in 0 … steps − 1, from time s = 1 − i/steps to s' = s − 1/steps:
 *       v, variance = dit(x, 1000·s, y)      the first and the last 4 of 8 output channels; no use is made of the variance
 *       u, variance = dit(x, 1000·s, none)   `none` is the class behind all classes
 *       x += (s' − s) · (u + guidance · (v − u))
 *
 * which is Euler's method on rectified flow with classifier-free guidance. A contender may arrange the 2B rows of a
 * step freely; all of them are fastest with one forward pass.
 *
 * A step of the benchmark advances every batch by the next `stride` of these steps, and starts over after the last
 * one: `parts` holds milliseconds for each batch, `ms` is their sum. `result` is the latents of all batches in order,
 * on which contenders must agree; the checksum is their mean square.
 *
 * `tensors.*` (see `tensor-file.ts`) holds every weight under its name in facebookresearch/DiT, the constant
 * `pos_embed`, and for each batch `noise.B` [B, 4, 32, 32] and the classes `y.B` [B]. `work.json` holds the numbers
 * below. With `--model FOLDER` these are the weights of a trained model instead, which draws whole pictures, by the
 * prediction that its card names (`trained-sample.ts`). Of random weights, gates, modulations and the last layer start far from zero, where training starts them, so that a mistake
 * anywhere in a contender moves the latents.
 */
import { countMultiplyAdds } from "../src/engine/passes/cost.ts";
import { type Graph, graphOf } from "../src/engine/graph/graph.ts";
import { sizeOf } from "../src/engine/arrays/ndarray.ts";
import { type DiTConfig, ditPresets } from "../src/models/dit/config.ts";
import { networkSchema, type TracedNetwork, traceNetwork } from "../src/models/network.ts";
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

export interface SampleWork {
  readonly threads: number;
  readonly hidden: number;
  readonly depth: number;
  readonly heads: number;
  readonly patch: number;
  readonly size: number;
  readonly channels: number;
  readonly classes: number;
  /** Channels of the network's output. */
  readonly outputs: number;
  /** What the network predicts: "flow" is noise minus picture. */
  readonly predicts: "x0" | "flow";
  /** The configuration of the network. */
  readonly network: object;
  readonly frequencies: number;
  readonly steps: number;
  /** Divides `steps`. */
  readonly stride: number;
  readonly guidance: number;
  readonly batches: readonly number[];
}

export function sampleWork(threads: number): SampleWork {
  const preset: DiTConfig = ditPresets["DiT-S/2"];
  const { hidden, depth, heads, patch } = preset;
  return {
    threads,
    hidden,
    depth,
    heads,
    patch,
    size: 32,
    channels: 4,
    classes: 1000,
    outputs: 8,
    predicts: "flow",
    network: { kind: "dit", ...preset },
    frequencies: 256,
    steps: 50,
    stride: 5,
    guidance: 4,
    batches: [1, 4],
  };
}

function tracedNetwork({ network }: SampleWork): TracedNetwork {
  return traceNetwork(networkSchema().parse(network));
}

/** Traces the network: `x`, `t` and `y` → `output`. */
export function sampleGraph(work: SampleWork): Graph {
  return graphOf({ output: tracedNetwork(work).output });
}

/** The name of a batch among the parts of a step. */
export function batchName(batch: number): string {
  return `batch ${batch}`;
}

export function* sampleTensors(work: SampleWork): Generator<readonly [string, HostTensor]> {
  const normal = normalSource(3);
  const { declared, buffers } = tracedNetwork(work).params;
  for (const [name, { tensor }] of declared) {
    const shape = tensor.shape as readonly number[];
    yield [name, normalTensor(normal, shape, deviationOf(name, shape))];
  }
  for (const [name, { value }] of buffers) {
    yield [name, { shape: value.shape, data: Float32Array.from(value.data, Number) }];
  }
  for (const batch of work.batches) {
    const noise = normalTensor(normal, [batch, work.channels, work.size, work.size], 1);
    yield [`noise.${batch}`, noise];
    const classes = Float32Array.from({ length: batch }, (_, i) => (i * 207 + 88) % work.classes);
    yield [`y.${batch}`, { shape: [batch], data: classes }];
  }
}

/** A standard deviation of weights that preserves the magnitude of activations. */
function deviationOf(name: string, shape: readonly number[]): number {
  if (name.endsWith("bias")) return 0.1;
  return name.endsWith("embedding_table.weight") ? 0.5 : 1 / Math.sqrt(sizeOf(shape.slice(1)));
}

/**
 * Floating-point operations of each part: two for each multiply-add of the network's matrix products, with and
 * without the class. Elementwise work is not counted.
 */
export function sampleFlops(work: SampleWork): Record<string, number> {
  const graph = sampleGraph(work);
  return Object.fromEntries(
    work.batches.map((batch) => [
      batchName(batch),
      2 * work.stride * countMultiplyAdds(graph, 2 * batch),
    ]),
  );
}
