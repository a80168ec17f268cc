/**
 * `npm run on-gpu [-- --devices webgpu,cuda --steps 200 --json FILE]`: what the accelerators of this machine do. On each device: every
 * case of the conformance suite against the reference interpreter, the milliseconds of a forward pass of a DiT-S/2 beside the CPU's, and a training of
 * 200 steps. Prints a table in Markdown, and writes the same figures as JSON where asked. A device that cannot be used is one line.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ndarray } from "../src/engine/arrays/ndarray.ts";
import { graphOf, leafName } from "../src/engine/graph/graph.ts";
import { input } from "../src/engine/graph/functional.ts";
import { resolve } from "../src/engine/graph/shape.ts";
import type { Backend } from "../src/engine/runtime/backend.ts";
import type { NodeDevice } from "../src/engine/runtime/ort-session-node.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { arrayWeight } from "../src/engine/runtime/stored-weight.ts";
import { ditPresets } from "../src/models/dit/config.ts";
import { networkGraph } from "../src/pipelines/image-model.ts";
import { trainModel } from "../src/training/train-model.ts";
import { allCases } from "../test/conformance/cases/index.ts";
import { runCase } from "../test/conformance/suite.ts";
import { randomArray } from "../test/support/arrays.ts";

interface Figures {
  readonly device: string;
  readonly conformance: { readonly passed: number; readonly failed: readonly string[] };
  /** Milliseconds of a forward pass of a DiT-S/2, the best of ten. */
  readonly forward: { readonly [rows: string]: number };
  readonly training: { readonly steps: number; readonly seconds: number; readonly loss: number };
}

const { values } = parseArgs({
  options: {
    devices: { type: "string", default: "webgpu,cuda" },
    steps: { type: "string", default: "200" },
    cases: { type: "string", default: String(allCases.length) },
    json: { type: "string" },
  },
});

/** Why a device cannot be used; undefined if it can. */
async function obstacle(device: string): Promise<string | undefined> {
  try {
    const program = await nodeBackend(device as NodeDevice).compile(
      graphOf({ y: input("x", [1]).neg() }),
    );
    await program.dispose();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

async function conformance(backend: Backend): Promise<Figures["conformance"]> {
  const failed: string[] = [];
  const cases = allCases.slice(0, Number(values.cases));
  for (const test of cases) {
    const problems = await runCase(backend, test).catch((error: Error) => [error.message]);
    if (problems.length > 0) failed.push(`${test.name}: ${problems[0]}`);
  }
  return { passed: cases.length - failed.length, failed };
}

async function forwardTimes(backend: Backend): Promise<Figures["forward"]> {
  const graph = networkGraph({ kind: "dit", ...ditPresets["DiT-S/2"] });
  const weights = new Map(
    graph.parameters.map((parameter, i) => {
      const shape = resolve(parameter.shape, undefined);
      return [leafName(parameter), arrayWeight(randomArray(i, "float32", shape, -0.05, 0.05))];
    }),
  );
  const program = await backend.compile(graph, { weights: (name) => weights.get(name) });
  const times: Record<string, number> = {};
  for (const rows of [1, 8]) {
    const inputs = {
      x: randomArray(1, "float32", [rows, 4, 32, 32]),
      t: randomArray(2, "float32", [rows], 0, 1000),
      y: ndarray("int64", [rows], new Array<number>(rows).fill(7)),
    };
    let best = Infinity;
    for (let i = 0; i < 10; i++) {
      const begun = performance.now();
      await program.run(inputs);
      best = Math.min(best, performance.now() - begun);
    }
    times[`${rows} rows`] = best;
  }
  await program.dispose();
  return times;
}

async function training(backend: Backend, steps: number): Promise<Figures["training"]> {
  const pictures = Array.from({ length: 64 }, (_, i) => ({
    width: 32,
    height: 32,
    channels: 3 as const,
    pixels: new Uint8Array(32 * 32 * 3).map((_value, j) => (7 * i + (j % 96)) % 256),
    label: i % 2 === 0 ? "even" : "odd",
  }));
  const begun = performance.now();
  let loss = NaN;
  await trainModel({
    backend,
    pictures,
    steps,
    onEvent: (event) => {
      if (event.kind === "step") loss = event.loss;
    },
  });
  return { steps, seconds: (performance.now() - begun) / 1000, loss };
}

function tableOf(rows: readonly Figures[]): string {
  const lines = rows.map(
    ({ device, conformance: { passed, failed }, forward, training: trained }) => {
      const cells = [
        device,
        `${passed} of ${passed + failed.length}`,
        ...Object.values(forward).map((ms) => ms.toFixed(1)),
        (trained.seconds / trained.steps).toFixed(3),
        trained.loss.toFixed(4),
      ];
      return `| ${cells.join(" | ")} |`;
    },
  );
  return [
    "| device | conformance | forward, 1 row, ms | 8 rows, ms | s a training step | last loss |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
    ...lines,
  ].join("\n");
}

const figures: Figures[] = [];
for (const device of values.devices.split(",")) {
  const why = await obstacle(device);
  if (why !== undefined) {
    process.stderr.write(`${device}: ${why}\n`);
    continue;
  }
  const backend = nodeBackend(device as NodeDevice);
  figures.push({
    device,
    conformance: await conformance(backend),
    forward: await forwardTimes(backend),
    training: await training(backend, Number(values.steps)),
  });
}
for (const {
  device,
  conformance: { failed },
} of figures) {
  for (const failure of failed) process.stderr.write(`${device}: ${failure}\n`);
}
if (figures.length > 0) process.stdout.write(`${tableOf(figures)}\n`);
else process.stdout.write(`None of ${values.devices} can be used on this machine.\n`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(figures)}\n`);
