/** The memory that drawing takes, stage by stage: known before anything is loaded. */
import { estimateMemory, type MemoryEstimate } from "../engine/passes/cost.ts";
import { byteSize } from "../engine/arrays/dtype.ts";
import { UsageError } from "../engine/errors.ts";
import { is, leafName } from "../engine/graph/graph.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { weightType } from "../engine/runtime/stored-weight.ts";
import { resolve } from "../engine/graph/shape.ts";
import { defaultTile } from "../models/coders/autoencoder-kl.ts";
import type { ImageModel, Stage } from "./image-model.ts";
import { skippedLayers } from "./guidance-settings.ts";
import { type Decided, latentSize } from "./settings.ts";
import type { Stages } from "./stages.ts";

/**
 * How a program keeps its weights: rearranged for speed and converted to float32 once, or as they are stored, so that each
 * run converts those in half precision one after the other.
 */
export type Keeping = "fast" | "stored";

const estimates = new WeakMap<Stage, Map<string, MemoryEstimate>>();

/** What more than themselves weights take, as measured: memory falls in pieces, and several are converted at once. */
const slack = { rearranged: 1 / 50, convertedOnce: 1 / 8, convertedEachRun: 1 / 12 } as const;

/** Bytes of a process that runs the stage on so many rows, and nothing else. */
export function stageMemory(stage: Stage, rows: number, keeping: Keeping): MemoryEstimate {
  const known = estimates.get(stage) ?? new Map<string, MemoryEstimate>();
  estimates.set(stage, known);
  const key = `${rows} ${keeping}`;
  const memory = known.get(key) ?? estimated(stage, rows, keeping);
  known.set(key, memory);
  return memory;
}

function estimated(stage: Stage, rows: number, keeping: Keeping): MemoryEstimate {
  const graph = stage.graph();
  const memory = estimateMemory(graph, rows);
  let [whole, stored, largest] = [0, 0, 0];
  for (const parameter of graph.parameters) {
    const found = stage.weights(leafName(parameter));
    const dtype = found ? weightType(found).dtype : parameter.dtype;
    const { node } = parameter;
    // Of a fixed table, only what is read is taken.
    if (dtype === parameter.dtype || (is(node, "parameter") && node.attributes.fixed)) continue;
    const count = sizeOf(resolve(parameter.shape, undefined));
    whole += count * byteSize(parameter.dtype);
    stored += count * byteSize(dtype);
    largest = Math.max(largest, count * byteSize(parameter.dtype));
  }
  const [weights, activations] =
    keeping === "stored"
      ? [stored - whole + slack.convertedEachRun * stored, largest]
      : [slack.rearranged * (memory.weights - whole) + slack.convertedOnce * whole, 0];
  const more = Math.round(weights);
  return {
    ...memory,
    weights: memory.weights + more,
    activations: memory.activations + activations,
    total: memory.total + more + activations,
  };
}

/**
 * How the weights of a stage are kept: of what runs once a drawing no copy is worth its making, and of others where memory
 * does not suffice for it.
 */
export function keepingOf(stage: Stage, rows: number, memory = Infinity): Keeping {
  if (isEncoder(stage)) return "stored";
  return stageMemory(stage, rows, "fast").total <= memory ? "fast" : "stored";
}

/** What runs once a drawing. */
function isEncoder({ kind }: Stage): boolean {
  return kind === "text encoder" || kind === "image encoder";
}

export interface PlannedStage {
  readonly stage: Stage;
  readonly memory: MemoryEstimate;
  /** The same where the weights are kept as they are stored. */
  readonly least: MemoryEstimate;
}

/** What of a request its memory depends on. */
export interface Load {
  /** Of the network's input. */
  readonly size: readonly [height: number, width: number];
  /** Texts that are told apart: with guidance, two. */
  readonly texts: number;
  /** Rows of a run of the network. */
  readonly rows: number;
  /** Layers that some of the rows skip. */
  readonly skippable?: readonly number[] | undefined;
  /** Height and width of the image that is drawn on from, in pixels. */
  readonly image?: readonly [height: number, width: number] | undefined;
}

/** Every stage in the order of drawing. */
export function memoryPlan(
  stages: Stages,
  { size, texts, rows, skippable, image }: Load,
): readonly PlannedStage[] {
  const planned = (stage: Stage, count: number): PlannedStage => ({
    stage,
    memory: stageMemory(stage, count, keepingOf(stage, count)),
    least: stageMemory(stage, count, "stored"),
  });
  const most = stages.tiled ? defaultTile : Infinity;
  const decoder = stages.decoder(size.map((side) => Math.min(side, most)) as [number, number]);
  const imageEncoder = image && stages.imageEncoder(image);
  return [
    ...stages.encoders.map((stage) => planned(stage, texts)),
    ...(imageEncoder ? [planned(imageEncoder, 1)] : []),
    planned(stages.network(size, skippable), rows),
    ...(decoder ? [planned(decoder, 1)] : []),
  ];
}

/**
 * Whether a request can be drawn: each stage must fit by itself, since any other can be dropped.
 *
 * @param memory bytes that the process may take
 * @throws UsageError that names what does not fit, and the way out
 */
export function checkMemory(
  { settings }: Decided,
  model: ImageModel,
  stages: Stages,
  memory: number,
): void {
  const { count, guidance, size, strength } = settings;
  const texts = guidance === 1 ? 1 : 2;
  const skippable = skippedLayers(settings);
  const sides = texts + (skippable.length > 0 ? 1 : 0);
  const image = strength === undefined ? undefined : size;
  const load = { size: latentSize(size, model), texts, rows: sides * count, skippable, image };
  for (const planned of memoryPlan(stages, load)) {
    const { stage, least } = planned;
    if (least.total <= memory) continue;
    throw new UsageError(
      `${model.name} needs ${shown(least.total)} of memory for ${stage.name}, but only ${shown(memory)} are available; ${wayOut(planned, memory, count)}.`,
    );
  }
}

function wayOut({ stage, memory: fast, least }: PlannedStage, memory: number, count: number) {
  if (stage.remedy !== undefined) return stage.remedy;
  // All but the weights is less for smaller pictures.
  if (least.total - least.activations - least.inputs <= memory) {
    return count > 1 && stage.kind === "network"
      ? "draw fewer pictures at once, or smaller ones"
      : "draw a smaller picture";
  }
  const isHalf = least.weights < 0.75 * fast.weights;
  return isHalf || least.total - least.weights / 2 > memory
    ? "close other programs, or use a machine with more"
    : "give its weights in float16, which take half as much";
}

/** In GiB, or below one in MiB. */
function shown(bytes: number): string {
  const [size, unit] = bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  return `${(bytes / size).toFixed(unit === "GiB" ? 1 : 0)} ${unit}`;
}
