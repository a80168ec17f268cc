/**
 * `npm run bench -- packed`: what clips of different sizes cost when they are packed into one sequence, beside a batch in which each is as
 * large as the largest. A Wan of 384 channels and four layers; processor time of a run, the least of several, and the largest difference from what each clip
 * gives alone.
 */
import { type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { input } from "../src/engine/graph/functional.ts";
import { graphOf } from "../src/engine/graph/graph.ts";
import type { Tensor } from "../src/engine/graph/tensor.ts";
import { fork, normal, randomKey } from "../src/engine/random/random.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../src/engine/runtime/stored-weight.ts";
import type { WanConfig } from "../src/models/wan/config.ts";
import { packedWan } from "../src/models/wan/wan.ts";
import { networkSchema, networkPresets } from "../src/models/network.ts";
import { createParams, initialize } from "../src/nn/params.ts";

/** Frames, rows and columns of latents. A patch is 1×2×2. */
const sizes = [
  [1, 16, 16],
  [3, 8, 16],
  [5, 16, 16],
  [2, 24, 16],
] as const;
const RUNS = 5;

interface Row {
  readonly name: string;
  readonly tokens: number;
  readonly milliseconds: number;
}

export interface PackedReport {
  readonly rows: readonly Row[];
  /** Between a packed clip and the same alone, the largest over all clips. */
  readonly difference: number;
}

const config = networkSchema().parse({
  ...networkPresets().get("Wan2.1-T2V-1.3B"),
  hidden: 384,
  heads: 6,
  depth: 4,
  inner: 1024,
  condition: { kind: "text", width: 64, length: 16 },
}) as unknown as WanConfig;

const tokensOf = ([frames, height, width]: readonly number[]) => (frames! * height! * width!) / 4;

/** Measures the packed clips, each of them alone, and a batch of clips of the largest size. */
export async function benchPacked(): Promise<PackedReport> {
  const backend = nodeBackend("cpu");
  const root = createParams();
  packedWan(root, [clipOf("x", sizes[0], 1)], config);
  const weights = initialize(root, randomKey(1));
  // The last layer is zero at first.
  const head = weights["head.head.weight"]!;
  weights["head.head.weight"] = normal(fork(randomKey(2), "head"), head.shape);
  const run = async (given: readonly { size: readonly number[]; rows: number; seed: number }[]) => {
    const inputs: Record<string, NdArray> = {};
    const clips = given.map(({ size, rows, seed }, i) => {
      const key = fork(randomKey(3), seed);
      inputs[`x${i}`] = normal(fork(key, "x"), [rows, config.channels, ...size]);
      inputs[`t${i}`] = ndarray("float32", [rows], new Array<number>(rows).fill(100 + 200 * seed));
      inputs[`text${i}`] = normal(fork(key, "text"), [rows, 16, 64]);
      return clipOf(String(i), size, rows);
    });
    const outputs = packedWan(createParams(), clips, config);
    const graph = graphOf(Object.fromEntries(outputs.map((output, i) => [`out${i}`, output])));
    const program = await backend.compile(graph, { weights: arrayWeights(weights), threads: 1 });
    let milliseconds = Infinity;
    let results: Readonly<Record<string, NdArray>> = {};
    for (let i = 0; i < RUNS; i++) {
      const before = process.cpuUsage();
      results = await program.run(inputs);
      milliseconds = Math.min(milliseconds, process.cpuUsage(before).user / 1000);
    }
    await program.dispose();
    return { results, milliseconds };
  };
  const all = sizes.map((size, seed) => ({ size, rows: 1, seed }));
  const packed = await run(all);
  const rows: Row[] = [];
  let difference = 0;
  for (const [i, each] of all.entries()) {
    const alone = await run([each]);
    rows.push({
      name: each.size.join("×"),
      tokens: tokensOf(each.size),
      milliseconds: alone.milliseconds,
    });
    difference = Math.max(difference, apart(alone.results["out0"]!, packed.results[`out${i}`]!));
  }
  const total = all.reduce((sum, { size }) => sum + tokensOf(size), 0);
  rows.push({ name: "packed", tokens: total, milliseconds: packed.milliseconds });
  const largest = sizes.toSorted((one, other) => tokensOf(other) - tokensOf(one))[0]!;
  const filled = await run([{ size: largest, rows: sizes.length, seed: 0 }]);
  rows.push({
    name: "filled up",
    tokens: sizes.length * tokensOf(largest),
    milliseconds: filled.milliseconds,
  });
  return { rows, difference };
}

/** A table with a row for each. */
export function packedTable({ rows, difference }: PackedReport): string {
  const lines = rows.map(
    ({ name, tokens, milliseconds }) =>
      `${name.padEnd(12)}${String(tokens).padStart(8)} tokens${milliseconds.toFixed(0).padStart(8)} ms${((1000 * milliseconds) / tokens).toFixed(0).padStart(8)} µs a token`,
  );
  return [...lines, `each packed clip is as alone to ${difference.toExponential(1)}`].join("\n");
}

function clipOf(name: string, size: readonly number[], rows: number) {
  const leaf = (kind: string, shape: readonly number[]): Tensor => input(`${kind}${name}`, shape);
  return {
    x: leaf("x", [rows, config.channels, ...size]),
    t: leaf("t", [rows]),
    text: leaf("text", [rows, 16, 64]),
  };
}

function apart(one: NdArray, other: NdArray): number {
  let most = 0;
  for (let i = 0; i < one.data.length; i++) {
    most = Math.max(most, Math.abs(Number(one.data[i]) - Number(other.data[i])));
  }
  return most;
}
