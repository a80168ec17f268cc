/** Checkpoints that keep the projections of an attention apart, read by models that have one for all three. */
import { formatShape } from "../engine/shape.ts";
import type { Weights } from "./safetensors.ts";
import { weightsOf } from "./safetensors.ts";
import type { TensorEntry } from "./safetensors-header.ts";
import { bytesSource } from "./source.ts";

/**
 * The same weights, but `X.to_q.Y`, `X.to_k.Y` and `X.to_v.Y` as one tensor `X.to_qkv.Y`, one after another along
 * axis 0. The joined tensors are copies in memory; all others stay where they are.
 */
export async function joinQkv(weights: Weights): Promise<Weights> {
  const entries = new Map(weights.entries);
  for (const [name, q] of weights.entries) {
    const [, path, rest] = /^(.*\.)to_q(\..*)$/.exec(name) ?? [];
    if (path === undefined || rest === undefined) continue;
    const key = (part: string) => `${path}to_${part}${rest}`;
    const [k, v] = [entries.get(key("k")), entries.get(key("v"))];
    if (!k || !v || !joins(q, k) || !joins(q, v)) continue;
    for (const part of ["q", "k", "v"]) entries.delete(key(part));
    entries.set(key("qkv"), await joined(key("qkv"), [q, k, v]));
  }
  return weightsOf(weights.name, weights.metadata, entries, () => weights.close());
}

function joins(a: TensorEntry, b: TensorEntry): boolean {
  return a.tag === b.tag && formatShape(a.shape.slice(1)) === formatShape(b.shape.slice(1));
}

async function joined(name: string, parts: readonly TensorEntry[]): Promise<TensorEntry> {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  for (const { source, offset, length } of parts) {
    bytes.set(await source.read(offset, length), end);
    end += length;
  }
  const { tag, dtype, shape, source } = parts[0]!;
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] ?? 1), 0);
  return {
    name,
    tag,
    dtype,
    shape: [rows, ...shape.slice(1)],
    source: bytesSource(bytes, source.name),
    offset: 0,
    length: bytes.length,
    aligned: true,
  };
}
