/** Divides a data set by the names of its pictures, so that the parts are the same each time and on each machine. */
import { createHash } from "node:crypto";
import type { DataPart } from "./config.ts";
import type { DataSet } from "./dataset.ts";
import { picked } from "./survey-node.ts";

/** With fewer pictures none is held out: the loss of one or two says nothing, and a small set needs all that it has. */
const LEAST_DIVIDED = 20;

/** A part of a data set. If nothing is held out, the rest is all of it and the other part is empty. */
export function partOf(data: DataSet, { share, of, limit = Infinity }: DataPart): DataSet {
  const held = data.count < LEAST_DIVIDED ? new Set<number>() : heldOut(data, share);
  const all = Array.from({ length: data.count }, (_, index) => index);
  const indices = all.filter((index) => held.has(index) === (of === "held"));
  const count = Math.min(limit, indices.length);
  const some = indices.filter(
    (_, i) =>
      Math.floor(((i + 1) * count) / indices.length) > Math.floor((i * count) / indices.length),
  );
  return { ...picked(data, some), heldOut: held.size };
}

/** The pictures whose names have the smallest hashes. Their folder may be moved, so its own name does not count. */
function heldOut(data: DataSet, share: number): ReadonlySet<number> {
  const { name, count } = data;
  const hashed = Array.from({ length: count }, (_, index) => {
    const own = data.nameOf(index);
    const within = own.startsWith(name) ? own.slice(name.length) : own;
    return [
      createHash("sha256").update(within.replaceAll("\\", "/")).digest("hex"),
      index,
    ] as const;
  });
  const sorted = hashed.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const most = Math.min(count - 1, Math.max(1, Math.round(share * count)));
  return new Set(sorted.slice(0, most).map(([, index]) => index));
}
