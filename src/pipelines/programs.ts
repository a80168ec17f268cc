/**
 * Compiled programs of a model's stages: how much memory each takes, which is known before anything is loaded, and the cache
 * that compiles a program when it is first run and drops programs when memory runs short.
 */
import { chunkFrames } from "../models/coders/video-autoencoder-config.ts";
import { guidesItself } from "../models/network.ts";
import { clipTile } from "./decode-clip.ts";
import { turns } from "../engine/turns.ts";
import { byteSize, type NdArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { PatchwiseError, UsageError } from "../engine/errors.ts";
import { type Graph, is, leafName } from "../engine/graph/graph.ts";
import { resolve } from "../engine/graph/shape.ts";
import { pick } from "../engine/records.ts";
import { estimateMemory, estimateTogether, type MemoryEstimate } from "../engine/passes/cost.ts";
import { gathersOf } from "../engine/passes/reads.ts";
import type { Backend, Program } from "../engine/runtime/backend.ts";
import { isInPlace, weightBytes } from "../engine/runtime/stored-weight.ts";
import type { Computation } from "./compute.ts";
import { drawnAtATime } from "./roll-out.ts";
import {
  type ImageModel,
  latentSize,
  type RunStage,
  type Stage,
  type Stages,
} from "./image-model.ts";
import { referenceSizes } from "./references.ts";
import { type ResolvedRequest, skippedLayers } from "./settings.ts";

/**
 * How a program holds its weights: rearranged for speed and converted to float32 when it is compiled ("prepacked"), or as
 * they are stored, so that each run converts half-precision weights one after another ("on demand").
 */
export type WeightLayout = "prepacked" | "onDemand";

/** The graph of each stage, from which its memory is estimated before it is compiled. */
const graphs = new WeakMap<Stage, Graph>();
/** Estimates by the number of rows, with weights as their graphs declare them. */
const estimates = new WeakMap<Stage, Map<number, MemoryEstimate>>();

/** Programs that a pipeline keeps unless told otherwise: enough for encoders, an autoencoder and a few picture sizes. */
const KEPT = 8;

/** Measured overhead of weights as a share of their bytes: memory fragments, and several weights are converted at once. */
const overhead = { rearranged: 1 / 50, convertedOnce: 1 / 8, convertedEachRun: 1 / 12 } as const;

function tracedOnce(stage: Stage): Graph {
  const graph = graphs.get(stage) ?? stage.graph();
  graphs.set(stage, graph);
  return graph;
}

/** Bytes of the weights that are not stored in the type of the graph: in that type, as they are stored, and of the largest. */
function convertedWeights(stage: Stage) {
  const { parameters, nodes } = tracedOnce(stage);
  const { weights } = stage;
  let [whole, stored, largest] = [0, 0, 0];
  for (const parameter of parameters) {
    const found = weights(leafName(parameter));
    const { node } = parameter;
    const bytes = sizeOf(resolve(parameter.shape, undefined)) * byteSize(parameter.dtype);
    const own = found && isInPlace(found, () => true) ? weightBytes(found) : bytes;
    // Fixed tables are never converted as a whole.
    if (own === bytes || (is(node, "parameter") && node.attributes.fixed)) continue;
    whole += bytes;
    stored += own;
    // Of a vocabulary, only the rows of a text are converted.
    const readers = nodes.filter(({ inputs }) => inputs.includes(parameter));
    if (gathersOf(parameter, { nodes }).length === readers.length) continue;
    // Of a quantized one, its numbers and their products with the scales are in memory together.
    largest = Math.max(largest, own < 0.3 * bytes ? 2 * bytes : bytes);
  }
  return { whole, stored, largest };
}

/** Bytes of a process that runs only this stage, on a number of rows. */
export function stageMemory(stage: Stage, rows: number, layout: WeightLayout): MemoryEstimate {
  const known = estimates.get(stage) ?? new Map<number, MemoryEstimate>();
  estimates.set(stage, known);
  const graph = tracedOnce(stage);
  const memory = known.get(rows) ?? estimateMemory(graph, rows);
  known.set(rows, memory);
  const { whole, stored, largest } = convertedWeights(stage);
  const [weights, activations] =
    layout === "onDemand"
      ? [stored - whole + overhead.convertedEachRun * stored, largest]
      : [overhead.rearranged * (memory.weights - whole) + overhead.convertedOnce * whole, 0];
  const more = Math.round(weights);
  return {
    ...memory,
    weights: memory.weights + more,
    activations: memory.activations + activations,
    total: memory.total + more + activations,
  };
}

/** Bytes to which quantized weights may be expanded; more would take the memory for whose sake they were quantized. */
const MOST_EXPANDED = 2 ** 31;

/**
 * The layout of a stage's weights. Encoders run once a drawing, which is too rarely to pay for another copy; other stages are
 * prepacked if that fits in memory, but for large quantized ones.
 */
function layoutOf(stage: Stage, rows: number, memory = Infinity): WeightLayout {
  if (stage.kind === "text encoder" || stage.kind === "image encoder") return "onDemand";
  const { whole, stored } = convertedWeights(stage);
  if (whole > MOST_EXPANDED && stored < 0.4 * whole) return "onDemand";
  return stageMemory(stage, rows, "prepacked").total <= memory ? "prepacked" : "onDemand";
}

export interface PlannedStage {
  readonly stage: Stage;
  readonly memory: MemoryEstimate;
  /** The estimate with weights on demand. */
  readonly least: MemoryEstimate;
}

/** What the memory of a drawing depends on. */
export interface Load {
  /** Size of the network's input. */
  readonly size: readonly [height: number, width: number];
  /** Number of different texts: with guidance, two. */
  readonly texts: number;
  /** Frames of the network's input, for clips. */
  readonly frames?: number | undefined;
  /** Rows of one run of the network. */
  readonly rows: number;
  /** Layers that some of the rows skip. */
  readonly skippable?: readonly number[] | undefined;
  readonly compute?: Computation | undefined;
  /** Sizes of reference pictures as the network sees them. */
  readonly references?: readonly (readonly [height: number, width: number])[] | undefined;
  /** Height and width in pixels of the largest image to encode, if there is one. */
  readonly image?: readonly [height: number, width: number] | undefined;
}

/** The memory of every stage, in the order of drawing. */
export function memoryPlan(
  stages: Stages,
  { size, frames, texts, rows, skippable, compute, image, references }: Load,
): readonly PlannedStage[] {
  const planned = (stage: Stage, count: number): PlannedStage => ({
    stage,
    memory: stageMemory(stage, count, layoutOf(stage, count)),
    least: stageMemory(stage, count, "onDemand"),
  });
  const most = stages.tile ?? Infinity;
  const decoder = stages.decoder(size.map((side) => Math.min(side, most)) as [number, number]);
  const clips = stages.clipCoder(
    "decode",
    size.map((side) => Math.min(side, clipTile)) as [number, number],
  );
  // All chunks but the first, which is shorter, take the same memory.
  const clipDecoder = clips?.stage(clips.coder.graph(1, false));
  const encoded = image && stages.clipCoder("encode", image);
  const imageEncoder =
    image &&
    (encoded ? encoded.stage(encoded.coder.graph(chunkFrames, false)) : stages.imageEncoder(image));
  return [
    ...stages.encoders.map((stage) => planned(stage, texts)),
    ...(imageEncoder ? [planned(imageEncoder, 1)] : []),
    planned(stages.network(size, { skippable, frames, compute, references }), rows),
    ...[decoder, clipDecoder].flatMap((stage) => (stage ? [planned(stage, 1)] : [])),
  ];
}

/**
 * Checks that a drawing fits in memory. Each stage must fit by itself, because the other programs can be dropped.
 *
 * @param memory bytes that the process may take
 * @throws UsageError that names the stage that does not fit, and a way out
 */
export function checkMemory(
  { settings, references }: Pick<ResolvedRequest, "settings" | "references">,
  model: ImageModel,
  stages: Stages,
  memory: number,
): void {
  const { count, guidance, width, height, strength, aroundFrames, loop, compute } = settings;
  const alone = guidance === 1 || model.process.guidesItself || guidesItself(model.network);
  const texts = alone ? 1 : 2;
  const skippable = skippedLayers(settings);
  const rows = (texts + (skippable.length > 0 ? 1 : 0)) * count;
  const encodes = strength !== undefined || aroundFrames || loop;
  const own = encodes ? [[height, width] as const] : [];
  const encoded = references.map((each) => [each.height, each.width] as const);
  const image = [...own, ...encoded].toSorted(([a, b], [c, d]) => c * d - a * b)[0];
  const size = latentSize(settings, model);
  const frames = drawnAtATime(settings, model);
  const pictures = { size, frames, image, references: referenceSizes(references, model) };
  const load = { ...pictures, texts, rows, skippable, compute };
  for (const planned of memoryPlan(stages, load)) {
    const { stage, least } = planned;
    if (least.total <= memory) continue;
    throw new UsageError(
      `${model.name} needs ${shown(least.total)} of memory for ${stage.name}, but only ${shown(memory)} are available; ${wayOut(planned, memory, count)}.`,
    );
  }
}

/** The most rows, up to `most`, with which a stage fits in memory; at least one. */
export function rowsWithin(stage: Stage, most: number, memory: number | undefined): number {
  const fits = (rows: number) =>
    memory === undefined || stageMemory(stage, rows, "onDemand").total <= memory;
  let rows = most;
  while (rows > 1 && !fits(rows)) rows = Math.floor(rows / 2);
  return rows;
}

function wayOut({ stage, memory: fast, least }: PlannedStage, memory: number, count: number) {
  if (stage.remedy !== undefined) return stage.remedy;
  // Everything but the weights shrinks with the picture.
  if (least.total - least.activations - least.inputs <= memory) {
    return count > 1 && stage.kind === "network"
      ? "draw fewer pictures at once, or smaller ones"
      : "draw a smaller picture";
  }
  const isHalf = least.weights < 0.75 * fast.weights;
  return isHalf || least.total - least.weights / 2 > memory
    ? "close other programs, or use a machine with more memory"
    : "give its weights in float16, which take half as much";
}

/** Bytes in GiB, or below one in MiB. */
function shown(bytes: number): string {
  const [size, unit] = bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  return `${(bytes / size).toFixed(unit === "GiB" ? 1 : 0)} ${unit}`;
}

/**
 * Checks numbers that one NaN would spread through, to end as a black picture.
 *
 * @param source what gave them, such as "the decoder"
 * @throws PatchwiseError if one of them is not finite
 */
export function checkFinite(source: string, arrays: Iterable<NdArray>): void {
  for (const { dtype, data } of arrays) {
    if (dtype !== "float32" && dtype !== "float64") continue;
    const wrong = (data as Float32Array).find((value) => !Number.isFinite(value));
    if (wrong === undefined) continue;
    throw new PatchwiseError(
      `The result of ${source} holds ${wrong}, so no picture can be drawn: its weights or those of a LoRA are damaged, or a setting is too large; try others, or download the model again.`,
    );
  }
}

export interface StagePrograms {
  readonly run: RunStage;
  dispose(): Promise<void>;
}

interface CachedProgram {
  readonly program: Program;
  readonly layout: WeightLayout;
  /** The largest number of rows that it ran. */
  rows: number;
}

/**
 * A cache of compiled stages. Runs are queued, so that no program is dropped while it runs.
 *
 * @param options.memory bytes that the process may take: the least recently used programs are dropped where another one would
 *   exceed them. Unless given, encoders are dropped when anything else runs, since they run once a drawing.
 * @param options.kept the number of programs that are kept
 * @throws UsageError from `run` once the cache is disposed
 */
export function stagePrograms(
  backend: Backend,
  {
    memory,
    kept = KEPT,
  }: { readonly memory?: number | undefined; readonly kept?: number | undefined } = {},
): StagePrograms {
  /** Least recently used first. */
  const cached = new Map<Stage, CachedProgram>();

  const drop = async (stage: Stage) => {
    const { program } = cached.get(stage)!;
    cached.delete(stage);
    // A graph holds the network's tables, which would add up over many picture sizes.
    graphs.delete(stage);
    await program.dispose();
  };
  /** A program that must be dropped before the stage is run. */
  const nextToDrop = (stage: Stage, rows: number, layout: WeightLayout): Stage | undefined => {
    if (cached.get(stage)?.layout === "prepacked" && layout === "onDemand") return stage;
    const others = [...cached].filter(([other]) => other !== stage);
    if (others.length >= kept) return others[0]![0];
    if (memory === undefined) return others.find(([, has]) => has.layout === "onDemand")?.[0];
    const total = estimateTogether([
      stageMemory(stage, rows, layout),
      ...others.map(([other, has]) => stageMemory(other, has.rows, has.layout)),
    ]);
    return total > memory ? others[0]?.[0] : undefined;
  };
  const ready = async (stage: Stage, rows: number): Promise<Program> => {
    const layout =
      cached.get(stage)?.layout === "onDemand" ? "onDemand" : layoutOf(stage, rows, memory);
    for (;;) {
      const other = nextToDrop(stage, rows, layout);
      if (!other) break;
      await drop(other);
    }
    const found = cached.get(stage);
    const program =
      found?.program ??
      (await backend.compile(tracedOnce(stage), {
        weights: stage.weights,
        prepack: layout === "prepacked",
        convertEachRun: layout === "onDemand",
      }));
    cached.delete(stage);
    cached.set(stage, { program, layout, rows: Math.max(rows, found?.rows ?? 0) });
    return program;
  };

  let isDisposed = false;
  const inTurn = turns();
  return {
    run: (stage, inputs, options) =>
      inTurn(async () => {
        options?.signal?.throwIfAborted();
        if (isDisposed) {
          throw new UsageError("The pipeline was disposed, so it draws no more; open it again.");
        }
        const rows = Object.values(inputs)[0]?.shape[0] ?? 1;
        // A network may read less than it is offered, such as one that is not told the time.
        const read = new Set(tracedOnce(stage).inputs.map(leafName));
        const taken = pick(inputs, (name) => read.has(name));
        const outputs = await (await ready(stage, rows)).run(taken, options);
        checkFinite(stage.name, Object.values(outputs));
        return outputs;
      }),
    dispose: () => {
      isDisposed = true;
      return inTurn(async () => {
        for (const stage of cached.keys()) await drop(stage);
      });
    },
  };
}
