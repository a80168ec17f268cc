// Child process of large-file.test.ts: opens a checkpoint as a program, runs it, reports what memory it took.
import { graphOf, input, ndarray, parameter } from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { storedWeights } from "patchwise/weights";
import { openSafetensorsFile } from "patchwise/weights/node";

const path = String(process.argv[2]);
const convertEachRun = process.argv[3] === "each run";
const backend = nodeBackend("cpu");
const x = input("x", [1, 4096]);
// The runtime's own libraries are loaded before anything is measured.
const first = await backend.compile(graphOf({ y: x.add(1) }));
const before = process.memoryUsage.rss();

const start = performance.now();
const weights = await openSafetensorsFile(path);
let y = x;
for (const [name, { shape }] of weights.entries) y = y.linear(parameter(name, shape)).tanh();
const program = await backend.compile(graphOf({ y }), {
  weights: storedWeights(weights),
  convertEachRun,
});
const openMs = performance.now() - start;
const opened = process.memoryUsage.rss();
const { y: result } = await program.run({
  x: ndarray("float32", [1, 4096], new Float32Array(4096).fill(1)),
});
const growth = Math.max(opened, process.memoryUsage.rss()) - before;
process.stdout.write(JSON.stringify({ openMs, growth, first: result?.data[0] }));
await program.dispose();
await first.dispose();
await weights.close();
