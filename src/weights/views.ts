/** Views of weights under other names, or with joined, reordered or fewer tensors. No bytes are moved. */
import { blockFormats, blockRange } from "../engine/arrays/blocks.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
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
  return joinRows(weights, (name) => {
    const [, path, rest] = projections.exec(name) ?? [];
    if (path === undefined || rest === undefined) return undefined;
    const added = name.startsWith("add_", path.length);
    const key = (part: string) => `${path}${added ? `add_${part}_proj` : `to_${part}`}${rest}`;
    return { name: key("qkv"), rest: [key("k"), key("v")] };
  });
}

/** A tensor that others are joined to. */
interface RowGroup {
  /** The name of the joined tensor. */
  readonly name: string;
  /** The tensors behind the first one. */
  readonly rest: readonly string[];
}

/** Joins tensors along axis 0, where all of a group are there and fit; `groupOf` gives the group of its first tensor. */
export function joinRows(
  weights: Weights,
  groupOf: (first: string) => RowGroup | undefined,
): Weights {
  const entries = new Map(weights.entries);
  for (const [first, entry] of weights.entries) {
    const group = groupOf(first);
    const rest = group?.rest.map((name) => weights.entries.get(name)) ?? [];
    if (!group || !rest.every((other) => other !== undefined && joins(entry, other))) continue;
    for (const name of [first, ...group.rest]) entries.delete(name);
    entries.set(group.name, joined(group.name, [entry, ...(rest as TensorEntry[])]));
  }
  return weightsOf(weights.name, weights.metadata, entries, () => weights.close());
}

/** Splits tensors along axis 0 into equal parts, whose names `partsOf` gives. */
export function splitRows(
  weights: Weights,
  partsOf: (name: string) => readonly string[] | undefined,
): Weights {
  const entries = [...weights.entries].flatMap(([name, entry]) => {
    const names = partsOf(name);
    const [rows = 0] = entry.shape;
    if (!names || rows % names.length !== 0) return [[name, entry] as const];
    const count = rows / names.length;
    return names.map((part, i) => [part, rowsOf(entry, part, i * count, count)] as const);
  });
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

/** Puts the second half of the rows of some layers before the first. */
export function swapHalves(weights: Weights, swaps: (layer: string) => boolean): Weights {
  const entries = [...weights.entries].map(([name, entry]) => {
    const [rows = 0] = entry.shape;
    if (!swaps(name.replace(/\.(weight|bias)$/, "")) || rows % 2 !== 0)
      return [name, entry] as const;
    const [first, second] = [0, rows / 2].map((from) => rowsOf(entry, name, from, rows / 2));
    return [name, joined(name, [second!, first!])] as const;
  });
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

/** `count` rows from row `from` of a tensor. */
function rowsOf(entry: TensorEntry, name: string, from: number, count: number): TensorEntry {
  const [rows = 0, ...rest] = entry.shape;
  const rowBytes = entry.length / rows;
  const { parts, blocks, ...whole } = entry;
  if (parts) return rowsOfParts(parts, name, from, count);
  if (blocks) {
    const { format } = blocks;
    const inRow = sizeOf(rest);
    const first = blocks.first + from * inRow;
    const { offset, length } = blockRange(format, first, count * inRow);
    return {
      ...whole,
      name,
      blocks: { format, first: first % blockFormats[format].numbers },
      shape: [count, ...rest],
      offset: entry.offset + offset,
      length,
    };
  }
  const { scale } = whole;
  return {
    ...whole,
    name,
    shape: [count, ...rest],
    offset: entry.offset + from * rowBytes,
    length: count * rowBytes,
    ...(scale && sizeOf(scale.shape) > 1 && { scale: rowsOf(scale, scale.name, from, count) }),
  };
}

function rowsOfParts(parts: readonly TensorEntry[], name: string, from: number, count: number) {
  const found: TensorEntry[] = [];
  let top = 0;
  for (const part of parts) {
    const [rows = 0] = part.shape;
    const [first, last] = [Math.max(from, top), Math.min(from + count, top + rows)];
    if (first < last) found.push(rowsOf(part, name, first - top, last - first));
    top += rows;
  }
  return found.length === 1 ? found[0]! : joined(name, found);
}

function joins(a: TensorEntry, b: TensorEntry): boolean {
  const bothScaled = (a.scale === undefined) === (b.scale === undefined);
  const alike =
    (a.tag === b.tag && bothScaled) || (a.blocks !== undefined && b.blocks !== undefined);
  return alike && formatShape(a.shape.slice(1)) === formatShape(b.shape.slice(1));
}

function joined(name: string, parts: readonly TensorEntry[]): TensorEntry {
  const { tag, dtype, shape, blocks } = parts[0]!;
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
    ...(blocks && { blocks }),
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
