/**
 * `npm run bench -- remedies [PICTURES] [--model FOLDER]`: what products of 8-bit integers cost in each form, on the bundled model or on a model of
 * classes that `patchwise train` wrote. For each form the relative error of the network's output on the inputs of the float32 drawings, and
 * the PSNR of whole drawings of 20 steps to those of float32 with the same seeds.
 *
 * Forms that need to know the activations beforehand are calibrated on other prompts and seeds than those that are measured. The figures do
 * not depend on the load of the machine.
 */
import type { NdArray } from "../src/engine/arrays/ndarray.ts";
import type { Backend, CompileOptions, Program } from "../src/engine/runtime/backend.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { psnr } from "../src/evaluation/psnr.ts";
import type { Picture } from "../src/pictures/picture.ts";
import { openModel } from "../src/pipelines/open/open-node.ts";
import { finished, imagePipeline, type Pipeline } from "../src/pipelines/pipeline.ts";
import { classSubjects, promptSubjects, type Subject } from "./pareto-subjects.ts";
import {
  type Calibration,
  layersOf,
  type Network,
  type Remedy,
  remedied,
  SCALES,
  withMagnitudes,
} from "./remedy-graphs.ts";

const STEPS = 20;

const remedies: readonly Remedy[] = [
  { name: "a scale for each row (what ships)" },
  { name: "one scale for all rows", form: "tensor" },
  { name: "one fixed scale a layer, calibrated", form: "fixed" },
  { name: "the same, by noise level", form: "fixed by noise level" },
  { name: "a scale and a zero point for each row", form: "row with zero point" },
  { name: "weights alone in 8 bits", form: "weights alone" },
  { name: "smoothing", smooth: true },
  { name: "rotation", rotate: true },
  { name: "smoothing and rotation", smooth: true, rotate: true },
  { name: "one scale for all rows, smoothing", form: "tensor", smooth: true },
  { name: "one scale for all rows, rotation", form: "tensor", rotate: true },
  { name: "first and last layers in 8 bits, too", layers: "tokens" },
  { name: "all layers in 8 bits", layers: "all" },
  { name: "modulations in float32, too", layers: "no modulation" },
  { name: "every second layer in float32", layers: "every second" },
  { name: "the first quarter of steps in float32", exactSteps: (share) => share < 0.25 },
  { name: "the last quarter of steps in float32", exactSteps: (share) => share >= 0.75 },
  { name: "the last step in float32", exactSteps: (share) => share >= 1 - 1 / STEPS },
];

interface Row {
  readonly name: string;
  /** The number of layers in integers. */
  readonly layers: number;
  /** ‖difference‖ / ‖output of float32‖, the mean over all runs of the network. */
  readonly error: number;
  /** PSNR to the drawings of float32, in dB. */
  readonly mean: number;
  readonly least: number;
}

type Inputs = Readonly<Record<string, NdArray>>;
type RunNetwork = (inputs: Inputs) => Promise<Record<string, NdArray>>;

/** A backend whose network is computed as `run` says, once it is compiled. */
class Probe implements Backend {
  readonly #backend = nodeBackend("cpu");
  readonly device = "cpu";
  network: Network | undefined;
  run: RunNetwork | undefined;

  async compile(graph: Network["graph"], options: CompileOptions = {}): Promise<Program> {
    const program = await this.#backend.compile(graph, options);
    if (!("output" in graph.outputs)) return program;
    this.network = { graph, weights: options.weights! };
    const exact: RunNetwork = (inputs) => program.run(inputs);
    this.run = exact;
    return { ...program, run: (inputs) => this.run!(inputs), dispose: () => program.dispose() };
  }

  plain(network: Network): Promise<Program> {
    return this.#backend.compile(network.graph, { weights: network.weights });
  }
}

/** Measures all forms and returns a table in Markdown. */
export async function remediesTable(
  { pictures: count, model }: { readonly pictures: number; readonly model?: string | undefined },
  report: (line: string) => void,
): Promise<string> {
  const opened = await openModel(model ?? "emoji");
  const probe = new Probe();
  const pipeline = imagePipeline(opened, probe);
  try {
    const { classes } = opened;
    const all = classes ? classSubjects([...classes.keys()], 2 * count) : promptSubjects(2 * count);
    const measured = all.filter((_, i) => i % 2 === 0);
    const others = all.filter((_, i) => i % 2 === 1);
    await drawn(pipeline, measured.slice(0, 1));
    const { exact, seen, pictures } = await inFloat32(probe, pipeline, measured);
    const calibrating = await inFloat32(probe, pipeline, others, exact);
    const calibration = await calibrated(probe, calibrating.seen);
    const rows: Row[] = [];
    for (const remedy of remedies) {
      const { run, layers, dispose } = await runOf(probe, remedy, calibration, exact);
      probe.run = run;
      const error = await errorOf(run, seen);
      const distances = (await drawn(pipeline, measured)).map((picture, i) =>
        psnr(picture, pictures[i]!),
      );
      await dispose();
      const mean = distances.reduce((sum, each) => sum + each, 0) / distances.length;
      rows.push({ name: remedy.name, layers, error, mean, least: Math.min(...distances) });
      report(JSON.stringify(rows.at(-1)));
    }
    return tableOf(rows);
  } finally {
    await pipeline.dispose();
  }
}

async function drawn(pipeline: Pipeline, subjects: readonly Subject[]): Promise<Picture[]> {
  const pictures = [];
  for (const { request } of subjects) {
    pictures.push((await finished(pipeline.generate({ ...request, steps: STEPS })))[0]!);
  }
  return pictures;
}

interface SeenRun {
  readonly inputs: Inputs;
  readonly output: NdArray;
}

/** Draws in float32 and keeps each run of the network. */
async function inFloat32(
  probe: Probe,
  pipeline: Pipeline,
  subjects: readonly Subject[],
  exact = probe.run!,
) {
  const seen: SeenRun[] = [];
  probe.run = async (inputs) => {
    const outputs = await exact(inputs);
    seen.push({ inputs, output: outputs["output"]! });
    return outputs;
  };
  const pictures = await drawn(pipeline, subjects);
  probe.run = exact;
  return { exact, seen, pictures };
}

/** The noise level of a run, by which it is recognised. */
function levelOf(inputs: Inputs): number {
  return Number(inputs["t"]!.data[0]);
}

async function calibrated(probe: Probe, seen: readonly SeenRun[]): Promise<Calibration> {
  const layers = layersOf(probe.network!, "all");
  const { weights } = probe.network!;
  const program = await probe.plain({ graph: withMagnitudes(probe.network!, layers), weights });
  const channels = new Map<(typeof layers)[number], Float32Array>();
  const levels = new Map(layers.map((layer) => [layer, new Map<number, number>()]));
  for (const { inputs } of seen) {
    const outputs = await program.run(inputs);
    for (const [i, layer] of layers.entries()) {
      const now = outputs[`magnitude ${i}`]!.data as Float32Array;
      const before = channels.get(layer);
      channels.set(layer, before ? before.map((most, j) => Math.max(most, now[j]!)) : now);
      const byLevel = levels.get(layer)!;
      byLevel.set(
        levelOf(inputs),
        now.reduce((most, each) => Math.max(most, each), byLevel.get(levelOf(inputs)) ?? 0),
      );
    }
  }
  await program.dispose();
  return { channels, levels };
}

/** Compiles the network with a remedy. */
async function runOf(probe: Probe, remedy: Remedy, calibration: Calibration, exact: RunNetwork) {
  const layers = layersOf(probe.network!, remedy.layers);
  const program = await probe.plain(await remedied(probe.network!, remedy, calibration));
  const levels = layers.map((layer) => calibration.levels.get(layer)!);
  const order = [...levels[0]!.keys()];
  const scales = (level: number) => {
    const data = levels.map((byLevel) =>
      remedy.form === "fixed" ? Math.max(...byLevel.values()) : byLevel.get(level)!,
    );
    return { dtype: "float32", shape: [data.length], data: Float32Array.from(data) } as const;
  };
  const run: RunNetwork = async (inputs) => {
    const level = levelOf(inputs);
    if (remedy.exactSteps?.(order.indexOf(level) / order.length) === true) return exact(inputs);
    const isFixed = remedy.form?.startsWith("fixed") === true;
    return program.run(isFixed ? { ...inputs, [SCALES]: scales(level) } : inputs);
  };
  return { run, layers: layers.length, dispose: () => program.dispose() };
}

async function errorOf(run: RunNetwork, seen: readonly SeenRun[]): Promise<number> {
  let sum = 0;
  for (const { inputs, output } of seen) {
    const exact = output.data as Float32Array;
    const { data } = (await run(inputs))["output"]!;
    const difference = Math.hypot(...exact.map((value, i) => Number(data[i]) - value));
    sum += difference / Math.hypot(...exact);
  }
  return sum / seen.length;
}

function tableOf(rows: readonly Row[]): string {
  const lines = rows.map(({ name, layers, error, mean, least }) => {
    const figures = [`${(100 * error).toFixed(2)} %`, mean.toFixed(1), least.toFixed(1)];
    return `| ${[name, layers, ...figures].join(" | ")} |`;
  });
  return [
    "| form | layers | relative error | PSNR, mean | least |",
    "| --- | ---: | ---: | ---: | ---: |",
    ...lines,
  ].join("\n");
}
