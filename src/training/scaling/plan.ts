/**
 * A cost model of data-parallel training: what a step takes at any number of ranks, from what one process takes on one machine.
 *
 * A step is gradient, exchange and update, one after another, as `patchwise train` runs them under MPI. The all-reduce is the one of
 * Rabenseifner (2004), which MPI libraries use for long messages: a reduce-scatter by recursive halving and an all-gather by recursive
 * doubling. Each rank sends and receives 2·(N−1)/N of the gradient, in 2·log₂ N messages a bucket, and adds (N−1)/N of it.
 */
import { UsageError } from "../../engine/errors.ts";
import { ownRows } from "../collective/collective.ts";

/** Seconds that are linear in the number of examples. */
export interface Line {
  readonly fixed: number;
  readonly perRow: number;
}

/** The costs of one rank, measured or counted. */
export interface RankCosts {
  /** The number of trained weights, each 4 bytes of gradient. */
  readonly parameters: number;
  /** A step of a training by one process, which is one program. */
  readonly alone: Line;
  /** A step of one of two ranks, with gradients and weights through the host, without the exchange itself. */
  readonly together: Line;
  /** A step of one of so many ranks while the others take theirs on the same machine, where that was measured. */
  readonly beside?: Readonly<Record<number, Line>>;
  /** True if each rank updates its part of the weights: half of them in `together`. */
  readonly shards: boolean;
  /** Steps between two exchanges, of weights, moments and averages, where ranks train alone meanwhile. */
  readonly localSteps: number | undefined;
  /** Bytes a second that a core copies in memory. */
  readonly copyRate: number;
  /** Bytes of memory of a rank. */
  readonly memory: (rows: number, ranks: number) => number;
}

/** The network between ranks, to which each rank has a link of its own. */
export interface Link {
  /** Nominal rate in Gbit/s. */
  readonly gigabits: number;
  /** Seconds of a message without content. */
  readonly latency: number;
}

/** The memory of one machine, through which its ranks exchange what they have. */
export interface SharedMemory {
  /** Bytes a second that each of so many cores copies if all of them do. */
  readonly copyRates: Readonly<Record<number, number>>;
}

/** A typical latency of MPI over Ethernet in one data centre; InfiniBand takes a tenth. */
export const ethernetLatency = 20e-6;

/** The share of a link's nominal rate that reaches the payload. */
const payloadShare = 0.9;

/** Gradients are summed in buckets of this many numbers. */
const BUCKET = 2 ** 22;
const BYTES = 4;

export interface PlannedRanks {
  readonly ranks: number;
  /** Examples that each rank computes in a step. */
  readonly rows: number;
  readonly memoryBytes: number;
  readonly reduceSeconds: number;
  readonly stepSeconds: number;
  readonly imagesPerSecond: number;
  /** Images a second divided by those of as many processes that train alone. */
  readonly efficiency: number;
}

/** @returns seconds to sum the gradients of all ranks */
export function reduceSeconds(
  { parameters, copyRate }: Pick<RankCosts, "parameters" | "copyRate">,
  ranks: number,
  link: Link | SharedMemory,
): number {
  if (ranks === 1) return 0;
  const share = (ranks - 1) / ranks;
  const bytes = BYTES * parameters;
  // Each half of the exchange copies into shared memory and out of it.
  if ("copyRates" in link) return ((4 + 1.5) * share * bytes) / link.copyRates[ranks]!;
  const { gigabits, latency } = link;
  const rate = (payloadShare * gigabits * 1e9) / 8;
  const messages = 2 * Math.ceil(Math.log2(ranks)) * Math.ceil(parameters / BUCKET);
  // An addition reads two numbers and writes one, a copy reads one and writes one.
  return messages * latency + (2 * share * bytes) / rate + (1.5 * share * bytes) / copyRate;
}

/**
 * The rows of a batch that each of some ranks computes.
 *
 * @throws UsageError if they do not divide the batch
 */
export function rowsOfRank(ranks: number, batch: number): number {
  return ownRows({ rank: 0, size: ranks }, batch).count;
}

/**
 * Plans a training at several numbers of ranks.
 *
 * @param batch examples of a step of all ranks together
 * @param accumulate parts in which a rank computes its examples
 * @throws UsageError if a number of ranks does not divide the batch
 */
export function planRanks(
  costs: RankCosts,
  { batch, accumulate }: { readonly batch: number; readonly accumulate: number },
  counts: readonly number[],
  link: Link | SharedMemory,
): readonly PlannedRanks[] {
  const images = batch * accumulate;
  const alone = costs.alone.fixed + costs.alone.perRow * images;
  return counts.map((ranks) => {
    const rows = rowsOfRank(ranks, batch);
    const { localSteps } = costs;
    // A meeting sums weights, two moments and averages.
    const reduced = reduceSeconds(costs, ranks, link) * (localSteps ? 4 / localSteps : 1);
    const stepSeconds =
      ranks === 1 ? alone : ownSeconds(costs, ranks, rows * accumulate, link) + reduced;
    return {
      ranks,
      rows: rows * accumulate,
      memoryBytes: costs.memory(rows, ranks),
      reduceSeconds: reduced,
      stepSeconds,
      imagesPerSecond: images / stepSeconds,
      efficiency: alone / (ranks * stepSeconds),
    };
  });
}

/** The part of a step that a rank of several spends by itself. */
function ownSeconds(
  { alone, together, beside, shards, localSteps, copyRate }: RankCosts,
  ranks: number,
  rows: number,
  link: Link | SharedMemory,
): number {
  const measured = "copyRates" in link ? beside?.[ranks] : undefined;
  if (measured) return measured.fixed + measured.perRow * rows;
  const { fixed, perRow } = localSteps ? alone : together;
  // What is measured has half of the update.
  const spared = shards ? alone.fixed * (1 / 2 - 1 / ranks) : 0;
  // Passes over all weights wait for memory, products do not.
  const slower = "copyRates" in link ? copyRate / link.copyRates[ranks]! : 1;
  return Math.max(0, fixed - spared) * slower + perRow * rows;
}

/**
 * Costs by count, for a processor that is not here: three forward passes of multiply-adds at its speed, and the bytes that the update
 * and the way through the host move at this machine's rate.
 *
 * @param teraflops floating-point operations a second, in 10¹², two for each multiply-add
 */
export function countedCosts(
  {
    parameters,
    multiplyAdds,
    memory,
    shards,
    localSteps,
  }: Omit<RankCosts, "alone" | "together" | "copyRate"> & { readonly multiplyAdds: number },
  teraflops: number,
  copyRate: number,
): RankCosts {
  const perRow = (3 * 2 * multiplyAdds) / (teraflops * 1e12);
  const copy = (BYTES * parameters) / copyRate;
  return {
    parameters,
    copyRate,
    memory,
    shards,
    localSteps,
    // AdamW reads weights, gradients, two moments and averages, and writes all but the gradients: nine accesses, half of them a copy.
    alone: { fixed: 4.5 * copy, perRow },
    // Gradients leave one program, are packed, divided and enter the other one; weights go back.
    together: { fixed: ((shards ? 4.5 / 2 : 4.5) + 5) * copy, perRow },
  };
}

/**
 * The numbers of ranks of an option such as "1,2,8".
 *
 * @throws UsageError if they are not distinct whole numbers from 1 to 65,536
 */
export function rankCounts(text: string): readonly number[] {
  const counts = text.split(",").map((part) => (/^\d+$/.test(part.trim()) ? Number(part) : 0));
  const valid = counts.every((count) => count >= 1 && count <= 65_536);
  if (valid && new Set(counts).size === counts.length) return counts.toSorted((a, b) => a - b);
  throw new UsageError(
    `--ranks is ${JSON.stringify(text)}; give different whole numbers from 1 to 65536, such as 1,2,8,64.`,
  );
}
