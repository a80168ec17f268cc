/** Several processes that train one model together, each on its own rows of every batch (data parallelism). */
import type { Rows } from "../../data/loading/batch-reader.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { UsageError } from "../../engine/errors.ts";
import { type Graph, leafName } from "../../engine/graph/graph.ts";
import { mapValues } from "../../engine/records.ts";
import type { Arrays, Trainer } from "../step.ts";

/** Processes that call the same methods in the same order. A rank waits in a method until the others are there. */
export interface Collective {
  /** The number of this process, from 0. Rank 0 alone writes files and speaks. */
  readonly rank: number;
  /** The number of processes, and of those on this machine, which share its cores. */
  readonly size: number;
  readonly local: number;
  /** Replaces the numbers by their sums over all ranks. */
  sum(values: Float32Array | Float64Array): void;
  /** Replaces the bytes by those of rank 0. */
  broadcast(bytes: Uint8Array): void;
}

/**
 * The rows of a batch that a rank computes.
 *
 * @throws UsageError if the ranks do not divide the batch
 */
export function ownRows({ rank, size }: Collective, batch: number): Rows {
  const count = batch / size;
  if (Number.isInteger(count)) return { from: rank * count, count };
  const near = Math.max(1, Math.round(count)) * size;
  throw new UsageError(
    `training.batch is ${batch}, which ${size} processes cannot share equally; set it to a multiple of ${size}, such as ${near}.`,
  );
}

/** A rank's rows of the inputs of a step, which were drawn for the whole batch, so that they do not depend on who computes them. */
export function rowsOf(inputs: Arrays, collective: Collective, { inputs: leaves }: Graph): Arrays {
  const byRow = new Set(
    leaves.filter(({ shape: [first] }) => typeof first === "object").map(leafName),
  );
  return mapValues(inputs, (array, name) => {
    if (!byRow.has(name)) return array;
    const { from, count } = ownRows(collective, array.shape[0]!);
    const each = array.data.length / array.shape[0]!;
    const data = array.data.subarray(from * each, (from + count) * each);
    return { ...array, shape: [count, ...array.shape.slice(1)], data };
  });
}

/** Gradients are summed in buckets of this many numbers: a call for each tensor would wait for the other ranks each time. */
const BUCKET = 2 ** 22;

/** The mean of each gradient over the ranks. */
export function meanGradients(collective: Collective, gradients: Arrays): Arrays {
  const means: Record<string, NdArray> = {};
  for (const names of buckets(gradients)) {
    const all = new Float32Array(names.reduce((sum, name) => sum + lengthOf(gradients[name]!), 0));
    let at = 0;
    for (const name of names) {
      all.set(gradients[name]!.data as Float32Array, at);
      at += lengthOf(gradients[name]!);
    }
    collective.sum(all);
    for (let i = 0; i < all.length; i++) all[i]! /= collective.size;
    at = 0;
    for (const name of names) {
      const length = lengthOf(gradients[name]!);
      means[name] = { ...gradients[name]!, data: all.subarray(at, at + length) };
      at += length;
    }
  }
  return means;
}

/** The names of the arrays, in groups of at most `BUCKET` numbers or a single array. */
function buckets(arrays: Arrays): string[][] {
  const groups: string[][] = [];
  let room = 0;
  for (const [name, array] of Object.entries(arrays)) {
    if (groups.length === 0 || lengthOf(array) > room) {
      groups.push([]);
      room = BUCKET;
    }
    groups.at(-1)!.push(name);
    room -= lengthOf(array);
  }
  return groups;
}

function lengthOf({ data }: NdArray): number {
  return data.length;
}

/** Gives all ranks the weights, moments and averages of rank 0, and the mean loss of all ranks as that of a step. */
export async function togetherWith(collective: Collective, trainer: Trainer): Promise<Trainer> {
  const state = await trainer.readState();
  for (const { data } of Object.values(state)) {
    collective.broadcast(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  await trainer.writeState(state);
  return {
    ...trainer,
    async step(...batches) {
      const own = await trainer.step(...batches);
      const loss = Float64Array.of(own.loss / collective.size);
      collective.sum(loss);
      return { ...own, loss: loss[0]! };
    },
  };
}

/** How long a training has run, and whether it was asked to stop. */
interface Clock {
  readonly seconds: number;
  readonly stopped: boolean;
}

/** What the ranks agree on before a step: the clock of rank 0, and whether any rank was asked to stop. */
export function agreed(collective: Collective | undefined, own: Clock): Clock {
  if (!collective) return own;
  const { seconds, stopped } = own;
  const values = Float64Array.of(collective.rank === 0 ? seconds : 0, stopped ? 1 : 0);
  collective.sum(values);
  return { seconds: values[0]!, stopped: values[1]! > 0 };
}

/** A value of rank 0 that JSON can hold, in all ranks. Other ranks' own value is not looked at. */
export function fromFirst<T>(collective: Collective, value: T): T {
  const own = new TextEncoder().encode(JSON.stringify(value ?? null));
  const length = Float64Array.of(collective.rank === 0 ? own.length : 0);
  collective.sum(length);
  const bytes = collective.rank === 0 ? own : new Uint8Array(length[0]!);
  collective.broadcast(bytes);
  return (JSON.parse(new TextDecoder().decode(bytes)) ?? undefined) as T;
}

/** The ranks whose value, as JSON, is not that of rank 0. */
export function ranksThatDiffer(collective: Collective, value: unknown): number[] {
  const first = fromFirst(collective, value);
  const differs = new Float64Array(collective.size);
  differs[collective.rank] = JSON.stringify(first) === JSON.stringify(value) ? 0 : 1;
  collective.sum(differs);
  return [...differs.keys()].filter((rank) => differs[rank]! > 0);
}
