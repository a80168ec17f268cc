/** Several processes that train one model together, each on its own rows of every batch (data parallelism). */
import type { Rows } from "../../data/loading/batch-reader.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { UsageError } from "../../engine/errors.ts";
import { type Graph, leafName } from "../../engine/graph/graph.ts";
import { mapValues } from "../../engine/records.ts";
import type { Arrays } from "../step.ts";
import type { Trainer } from "../trainer.ts";

/** Processes that call the same methods in the same order. A rank waits in a method until the others are there. */
export interface Collective {
  /** The number of this process, from 0. Rank 0 alone writes files and speaks. */
  readonly rank: number;
  /** The number of processes, and of those on this machine, which share its cores. */
  readonly size: number;
  readonly local: number;
  /** Replaces the numbers by their sums over all ranks. */
  sum(values: Float32Array | Float64Array): void;
  /** Replaces the bytes by those of a rank; of rank 0 unless given. */
  broadcast(bytes: Uint8Array, from?: number): void;
  /** Sums as many equal parts as there are ranks over all ranks, and writes the part of this rank, by its number. */
  sumParts(parts: Float32Array, own: Float32Array): void;
  /** Replaces each of as many equal parts as there are ranks by that of its rank. */
  gatherParts(parts: Float32Array): void;
}

/**
 * The rows of a batch that a rank computes.
 *
 * @throws UsageError if the ranks do not divide the batch
 */
export function ownRows({ rank, size }: Pick<Collective, "rank" | "size">, batch: number): Rows {
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

/** Numbers are exchanged in buckets: small enough to stay in the cache on one machine, large enough for few messages on several. */
export function bucketOf({ size, local }: Pick<Collective, "size" | "local">): number {
  return local === size ? 2 ** 20 : 2 ** 22;
}

/** Arrays of fewer numbers are summed together: a call for each would wait for the other ranks each time. */
const FEW = 2 ** 16;

/** The sum of each gradient over the ranks. Large arrays are summed in place. */
export function sumGradients(collective: Collective, gradients: Arrays): Arrays {
  const sums: Record<string, NdArray> = { ...gradients };
  for (const names of together(gradients, bucketOf(collective))) {
    if (names.length === 1) {
      sumInPlace(collective, gradients[names[0]!]!.data as Float32Array);
      continue;
    }
    const all = new Float32Array(names.reduce((sum, name) => sum + lengthOf(gradients[name]!), 0));
    let at = 0;
    for (const name of names) {
      const array = gradients[name]!;
      all.set(array.data as Float32Array, at);
      sums[name] = { ...array, data: all.subarray(at, at + lengthOf(array)) };
      at += lengthOf(array);
    }
    collective.sum(all);
  }
  return sums;
}

/** Replaces the numbers by their sums over all ranks, bucket by bucket. */
export function sumInPlace(collective: Collective, values: Float32Array): void {
  const most = bucketOf(collective);
  for (let from = 0; from < values.length; from += most) {
    collective.sum(values.subarray(from, from + most));
  }
}

/** The names of the arrays: the large ones alone, the others in groups of at most so many numbers. */
function together(arrays: Arrays, most: number): string[][] {
  const groups: string[][] = [];
  let open: string[] = [];
  let room = 0;
  for (const [name, array] of Object.entries(arrays)) {
    const length = lengthOf(array);
    if (length >= FEW) {
      groups.push([name]);
      continue;
    }
    if (length > room) {
      open = [];
      groups.push(open);
      room = most;
    }
    open.push(name);
    room -= length;
  }
  return groups.filter((names) => names.length > 0);
}

function lengthOf({ data }: NdArray): number {
  return data.length;
}

/** Arrays of rank 0 in place of those of the other ranks. */
export function fromFirstRank(collective: Collective | undefined, arrays: Arrays): Arrays {
  for (const { data } of collective ? Object.values(arrays) : []) {
    collective!.broadcast(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return arrays;
}

/** The mean loss of all ranks as that of a step. */
export function withMeanLoss(collective: Collective, trainer: Trainer): Trainer {
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

/**
 * What the ranks agree on before a step: the clock of rank 0, and whether any rank was asked to stop. Until then they hand over their parts
 * of the state as often as rank 0 asks for it.
 */
export async function agreed(
  collective: Collective | undefined,
  own: Clock,
  trainer: Pick<Trainer, "readState">,
): Promise<Clock> {
  if (!collective) return own;
  const { seconds, stopped } = own;
  for (;;) {
    const values = Float64Array.of(collective.rank === 0 ? seconds : 0, stopped ? 1 : 0, 0);
    collective.sum(values);
    if (values[2] === 0) return { seconds: values[0]!, stopped: values[1]! > 0 };
    await trainer.readState();
  }
}

/** Asks the other ranks, which wait in `agreed`, to read the state with rank 0. */
export function askForState(collective: Collective): void {
  if (collective.rank === 0) collective.sum(Float64Array.of(0, 0, 1));
}

/** A value of rank 0 that JSON can hold, in all ranks. Other ranks' own value is not looked at. */
export function fromFirst<T>(collective: Collective, value: T): T {
  return fromRank(collective, 0, value);
}

/** A value of a rank that JSON can hold, in all ranks. */
export function fromRank<T>(collective: Collective, rank: number, value: T): T {
  const own = new TextEncoder().encode(JSON.stringify(value ?? null));
  const length = Float64Array.of(collective.rank === rank ? own.length : 0);
  collective.sum(length);
  const bytes = collective.rank === rank ? own : new Uint8Array(length[0]!);
  collective.broadcast(bytes, rank);
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
