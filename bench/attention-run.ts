/**
 * One measurement of `attention.ts`, in a process of its own so that the peak of its memory is that of one network:
 * `attention-run.ts KIND SIDE` prints the processor time of a forward pass in ms and the peak in MB as JSON.
 */
import { readFileSync } from "node:fs";
import { graphOf } from "../src/engine/graph/graph.ts";
import { normal, randomKey } from "../src/engine/random/random.ts";
import { arrayWeights } from "../src/engine/runtime/stored-weight.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { traceNetwork } from "../src/models/network.ts";
import { initialize } from "../src/nn/params.ts";
import { attentionKinds, networkWith } from "./attention-work.ts";

const [kind, side] = process.argv.slice(2);
const attention = attentionKinds.find((each) => each.kind === kind);
if (!attention || side === undefined) throw new Error("Give a kind of attention and a side.");

const traced = traceNetwork(networkWith(attention, Number(side)));
const weights = arrayWeights(initialize(traced.params, randomKey(1)));
const program = await nodeBackend("cpu").compile(graphOf({ output: traced.output }), {
  weights,
  prepack: true,
  threads: 1,
});
const inputs = {
  x: normal(randomKey(2), [1, 4, 2 * Number(side), 2 * Number(side)]),
  t: { dtype: "float32", shape: [1], data: new Float32Array([500]) },
} as const;
const times: number[] = [];
for (let run = 0; run < 3; run++) {
  const before = process.cpuUsage();
  await program.run(inputs);
  const { user, system } = process.cpuUsage(before);
  times.push((user + system) / 1000);
}
await program.dispose();
const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
// The first run allocates; of the others the faster one counts.
const milliseconds = Math.min(...times.slice(1));
process.stdout.write(JSON.stringify({ milliseconds, megabytes: Number(peak) / 1024 }));
