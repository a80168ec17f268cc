/** Functions that `browser.ts` calls inside a page. */
import { type NdArray, ndarray, toNumbers } from "../src/engine/arrays/ndarray.ts";
import { type Graph, graphOf } from "../src/engine/graph/graph.ts";
import { quantizeLinears } from "../src/engine/passes/quantize.ts";
import { fork, normal, randomKey } from "../src/engine/random/random.ts";
import type { Program } from "../src/engine/runtime/backend.ts";
import type { WebDevice } from "../src/engine/runtime/ort-session-web.ts";
import { webBackend } from "../src/engine/runtime/ort-web.ts";
import { arrayWeights } from "../src/engine/runtime/stored-weight.ts";
import { ditPresets } from "../src/models/dit/config.ts";
import { traceNetwork } from "../src/models/network.ts";

export interface BrowserWork {
  readonly device: WebDevice;
  readonly threads: number;
  /** Blocks of a DiT in patches of 2×2, their width, and latents along a side of a picture. */
  readonly depth: number;
  readonly hidden: number;
  readonly side: number;
  /** Pictures of a run. */
  readonly rows: number;
  /** Runs of each form, which alternate, after a first one. */
  readonly rounds: number;
}

export interface BrowserTimes {
  /** Milliseconds of each run. */
  readonly float32: readonly number[];
  readonly int8: readonly number[];
  /** ‖difference‖ / ‖float32‖ of the outputs. */
  readonly error: number;
}

/** A forward pass in float32 and in int8 in turn. */
export async function timed(work: BrowserWork): Promise<BrowserTimes> {
  const { device, threads, depth, hidden, side, rows, rounds } = work;
  const sizes = { depth, hidden, heads: hidden / 64, size: [side, side] } as const;
  const traced = traceNetwork({ ...ditPresets["DiT-S/2"], kind: "dit", ...sizes });
  const drawn: Record<string, NdArray> = {};
  for (const [i, [name, { tensor }]] of [...traced.params.declared].entries()) {
    const shape = tensor.shape as readonly number[];
    const { data } = normal(fork(randomKey(1), i), shape);
    const inputs = shape.length > 1 ? shape.slice(1).reduce((a, b) => a * b) : 100;
    drawn[name] = ndarray(
      "float32",
      shape,
      data.map((value) => value / Math.sqrt(inputs)),
    );
  }
  const weights = arrayWeights(drawn);
  const graph = graphOf({ output: traced.output });
  const quantized = quantizeLinears(graph, weights);
  const backend = webBackend({ device, threads, wasmPaths: "/ort/" });
  const compile = (given: Graph, source: typeof weights) =>
    backend.compile(given, { weights: source, prepack: true });
  const [exact, rounded] = [
    await compile(graph, weights),
    await compile(quantized.graph, quantized.weights),
  ];
  const inputs = {
    x: normal(randomKey(2), [rows, 4, side, side]),
    t: ndarray(
      "float32",
      [rows],
      Array.from({ length: rows }, () => 500),
    ),
    y: ndarray(
      "int64",
      [rows],
      Array.from({ length: rows }, (_, i) => i),
    ),
  };
  const output = async (program: Program) => toNumbers((await program.run(inputs))["output"]!);
  const [want, got] = [await output(exact), await output(rounded)];
  const error = Math.hypot(...want.map((value, i) => got[i]! - value)) / Math.hypot(...want);
  const times = { float32: [] as number[], int8: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    for (const [name, program] of [
      ["float32", exact],
      ["int8", rounded],
    ] as const) {
      const start = performance.now();
      await program.run(inputs);
      times[name].push(performance.now() - start);
    }
  }
  await Promise.all([exact.dispose(), rounded.dispose()]);
  return { ...times, error };
}
