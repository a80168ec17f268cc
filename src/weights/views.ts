/** Views of weights under other names, or with joined, reordered or fewer tensors. No bytes are moved. */
import { formatShape } from "../engine/graph/shape.ts";
import type { Weights } from "./safetensors/safetensors.ts";
import { weightsOf } from "./safetensors/safetensors.ts";
import type { TensorEntry } from "./safetensors/header.ts";
import { type ByteSource, checkRange } from "./sources/source.ts";

/** Matches the query projection of an attention; its key and value are named alike. */
const projections = /^(.*\.)(?:to_q|add_q_proj)(\..*)$/;

/**
 * Joins `X.to_q.Y`, `X.to_k.Y` and `X.to_v.Y` along axis 0 to one tensor `X.to_qkv.Y`, and `X.add_q_proj.Y`,
 * … to `X.add_qkv_proj.Y`.
 */
export function joinQkv(weights: Weights): Weights {
  const entries = new Map(weights.entries);
  for (const [name, q] of weights.entries) {
    const [, path, rest] = projections.exec(name) ?? [];
    if (path === undefined || rest === undefined) continue;
    const added = name.startsWith("add_", path.length);
    const key = (part: string) => `${path}${added ? `add_${part}_proj` : `to_${part}`}${rest}`;
    const [k, v] = [entries.get(key("k")), entries.get(key("v"))];
    if (!k || !v || !joins(q, k) || !joins(q, v)) continue;
    for (const part of ["q", "k", "v"]) entries.delete(key(part));
    entries.set(key("qkv"), joined(key("qkv"), [q, k, v]));
  }
  return weightsOf(weights.name, weights.metadata, entries, () => weights.close());
}

/** Puts the second half of the rows of some tensors before the first. */
export function swapHalves(weights: Weights, swaps: (name: string) => boolean): Weights {
  const entries = [...weights.entries].map(([name, entry]) => {
    const [rows = 0, ...rest] = entry.shape;
    if (!swaps(name) || rows % 2 !== 0) return [name, entry] as const;
    const half = { ...entry, shape: [rows / 2, ...rest], length: entry.length / 2 };
    const second = { ...half, offset: entry.offset + half.length };
    return [name, joined(name, [second, half])] as const;
  });
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

function joins(a: TensorEntry, b: TensorEntry): boolean {
  return a.tag === b.tag && formatShape(a.shape.slice(1)) === formatShape(b.shape.slice(1));
}

function joined(name: string, parts: readonly TensorEntry[]): TensorEntry {
  const { tag, dtype, shape } = parts[0]!;
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] ?? 1), 0);
  const source = joinedSource(parts);
  return {
    name,
    tag,
    dtype,
    shape: [rows, ...shape.slice(1)],
    source,
    offset: 0,
    length: source.size,
    aligned: true,
    parts,
  };
}

/** The bytes of several tensors, concatenated. */
function joinedSource(parts: readonly TensorEntry[]): ByteSource {
  const source: ByteSource = {
    name: parts[0]!.source.name,
    size: parts.reduce((sum, { length }) => sum + length, 0),
    async read(offset, length) {
      checkRange(source, offset, length);
      const bytes = new Uint8Array(length);
      let top = 0;
      for (const part of parts) {
        const [from, to] = [Math.max(offset, top), Math.min(offset + length, top + part.length)];
        if (from < to) {
          bytes.set(await part.source.read(part.offset + from - top, to - from), from - offset);
        }
        top += part.length;
      }
      return bytes;
    },
  };
  return source;
}

/** Returns the tensors whose names begin with a prefix, without the prefix. Closing the view closes the file. */
export function weightsUnder(weights: Weights, prefix: string): Weights {
  const entries = [...weights.entries].flatMap(([name, entry]) =>
    name.startsWith(prefix) ? [[name.slice(prefix.length), entry] as const] : [],
  );
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

/** Returns the tensors whose names are kept. Closing the view closes the file. */
export function weightsWhere(weights: Weights, kept: (name: string) => boolean): Weights {
  const entries = [...weights.entries].filter(([name]) => kept(name));
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}
