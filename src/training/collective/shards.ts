/** How the weights of a model are divided among ranks, and moved between arrays by name and the equal parts that MPI exchanges. */
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { bucketOf, type Collective } from "./collective.ts";

/** A weight in the part of the rank that updates it. */
interface Placed {
  readonly name: string;
  /** Where its numbers begin in that part. */
  readonly at: number;
  readonly length: number;
}

export interface Shards {
  /** The weights of each rank. */
  readonly parts: readonly (readonly Placed[])[];
  /** Numbers in each part, with the padding at its end. */
  readonly length: number;
}

/** Weights begin at multiples of 16 numbers, a line of the cache. */
const LINE = 16;

/**
 * Gives every weight to one rank, the largest first, always to the rank that has the fewest numbers. Whole weights, because optimizers
 * such as Muon need whole matrices.
 *
 * @param lengths the number of numbers of each weight
 */
export function shardsOf(lengths: Readonly<Record<string, number>>, ranks: number): Shards {
  const owned = Array.from({ length: ranks }, () => ({ names: new Set<string>(), sum: 0 }));
  const names = Object.keys(lengths);
  for (const name of names.toSorted((a, b) => lengths[b]! - lengths[a]!)) {
    const least = owned.reduce((a, b) => (b.sum < a.sum ? b : a));
    least.names.add(name);
    least.sum += padded(lengths[name]!);
  }
  return {
    parts: owned.map((rank) => {
      let next = 0;
      return names
        .filter((name) => rank.names.has(name))
        .map((name) => {
          const at = next;
          next += padded(lengths[name]!);
          return { name, at, length: lengths[name]! };
        });
    }),
    length: Math.max(...owned.map(({ sum }) => sum)),
  };
}

function padded(length: number): number {
  return Math.ceil(length / LINE) * LINE;
}

/** The names of a part in groups of at most a million numbers, or of one weight that is larger. */
export function groupsOf(part: readonly Placed[]): string[][] {
  const groups: string[][] = [];
  let room = 0;
  for (const { name, length } of part) {
    if (groups.length === 0 || length > room) {
      groups.push([]);
      room = 2 ** 20;
    }
    groups.at(-1)!.push(name);
    room -= length;
  }
  return groups;
}

/** The weights of a part as views of its numbers, which begin at an offset of a buffer. */
export function viewsOf(
  part: readonly Placed[],
  buffer: Float32Array,
  offset: number,
  shapes: Readonly<Record<string, readonly number[]>>,
): Record<string, NdArray<"float32">> {
  return Object.fromEntries(
    part.map(({ name, at, length }) => {
      const data = buffer.subarray(offset + at, offset + at + length);
      return [name, { dtype: "float32", shape: shapes[name]!, data }] as const;
    }),
  );
}

/**
 * Sums arrays of all ranks, of which each rank gets its own part (a reduce-scatter), bucket by bucket.
 *
 * @param own is overwritten with the sums of this rank's part
 */
export function sumParts(
  collective: Collective,
  { parts, length }: Shards,
  arrays: Readonly<Record<string, Float32Array>>,
  own: Float32Array,
): void {
  const each = Math.max(1, Math.floor(bucketOf(collective) / parts.length));
  const bucket = new Float32Array(Math.min(each, length) * parts.length);
  for (let from = 0; from < length; from += each) {
    const count = Math.min(each, length - from);
    for (const [rank, part] of parts.entries()) {
      copyRange(part, arrays, from, bucket.subarray(rank * count, (rank + 1) * count));
    }
    collective.sumParts(bucket.subarray(0, count * parts.length), own.subarray(from, from + count));
  }
}

/** Copies numbers of a part from its arrays. Padding keeps what was there. */
function copyRange(
  part: readonly Placed[],
  arrays: Readonly<Record<string, Float32Array>>,
  from: number,
  target: Float32Array,
): void {
  for (const { name, at, length } of part) {
    const [begin, end] = [Math.max(at, from), Math.min(at + length, from + target.length)];
    if (begin < end) target.set(arrays[name]!.subarray(begin - at, end - at), begin - from);
  }
}
