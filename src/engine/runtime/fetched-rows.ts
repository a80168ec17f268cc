/**
 * Tables of which a program looks up rows, such as the embedding of a text encoder's tokens, where their bytes are fetched as they are
 * needed: only the rows of a run are fetched, and given to the program as an input in place of the table.
 */
import { castArray, type NdArray, ndarray, toNumbers } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { input } from "../graph/functional.ts";
import { type Graph, graphOf, is, leafName, replay } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { pick } from "../records.ts";
import { gathersOf } from "../passes/reads.ts";
import type { CompileOptions, Program } from "./backend.ts";
import {
  isFetched,
  readWeight,
  sliceRows,
  type StoredWeight,
  weightBytes,
  weightType,
} from "./stored-weight.ts";

/** Bytes between two rows up to which they are fetched together: a request takes longer than these. */
const MOST_BETWEEN = 2 ** 14;
/** Requests at a time. */
const AT_A_TIME = 8;

/** Rows of a table that a program takes as an input. */
interface LookedUp {
  readonly table: StoredWeight;
  /** The name of the input with the indices. */
  readonly indices: string;
  /** The input with their rows. */
  readonly input: Tensor;
  /** The rows of the last run, since the steps of a drawing often look up the same ones. */
  kept: ReadonlyMap<number, Float32Array>;
}

/**
 * Compiles a graph whose tables of fetched weights, where it only looks up rows of them by an input, are not part of the program.
 *
 * @param compile compiles the graph without them
 */
export async function withFetchedRows(
  graph: Graph,
  options: CompileOptions,
  compile: (graph: Graph, options: CompileOptions) => Promise<Program>,
): Promise<Program> {
  const tables = new Map<string, LookedUp>();
  const made = new Map<Tensor, Tensor>();
  for (const parameter of graph.parameters) {
    const table = options.weights?.(leafName(parameter));
    if (!table || !isFetched(table)) continue;
    const lookups = gathersOf(parameter, graph);
    const readers = graph.nodes.filter(({ inputs }) => inputs.includes(parameter));
    const areInputs = lookups.every((node) => is(node.inputs[1]!.node, "input"));
    if (Object.values(graph.outputs).includes(parameter)) continue;
    if (lookups.length === 0 || lookups.length < readers.length || !areInputs) continue;
    for (const node of lookups) {
      const [output] = node.outputs as [Tensor];
      const indices = leafName(node.inputs[1]!);
      const rows = `rows of ${leafName(parameter)} at ${indices}`;
      const known = tables.get(rows)?.input ?? input(rows, output.shape, output.dtype);
      tables.set(rows, { table, indices, input: known, kept: new Map() });
      made.set(output, known);
    }
  }
  if (tables.size === 0) return compile(graph, options);
  const replaced = withReplaced(graph, made);
  const program = await compile(replaced, options);
  const left = new Set(replaced.inputs.map(leafName));
  // Indices that nothing reads but the tables.
  const gone = new Set(
    [...tables.values()].map(({ indices }) => indices).filter((name) => !left.has(name)),
  );
  return {
    ...program,
    async run(inputs, runOptions) {
      const given = pick(inputs, (name) => !gone.has(name));
      const fetched: Record<string, NdArray> = {};
      for (const [rows, looked] of tables) {
        runOptions?.signal?.throwIfAborted();
        fetched[rows] = await rowsAt(looked, inputs);
      }
      return program.run({ ...given, ...fetched }, runOptions);
    },
  };
}

/** A graph with other tensors in place of some. */
function withReplaced(graph: Graph, made: Map<Tensor, Tensor>): Graph {
  for (const node of graph.nodes) {
    if (node.outputs.some((tensor) => made.has(tensor))) continue;
    if (node.inputs.some((tensor) => made.has(tensor))) replay([node], made);
  }
  const outputs = Object.entries(graph.outputs).map(
    ([name, tensor]) => [name, made.get(tensor) ?? tensor] as const,
  );
  return graphOf(Object.fromEntries(outputs));
}

/**
 * The rows of a table at the indices of a run.
 *
 * @throws ShapeError if there is no such row
 */
async function rowsAt(
  looked: LookedUp,
  inputs: Readonly<Record<string, NdArray>>,
): Promise<NdArray> {
  const { table, indices: name, kept } = looked;
  const indices = inputs[name];
  if (!indices) throw new ShapeError(`The input ${name} is missing; give the indices of rows.`);
  const [height, width] = weightType(table).shape as readonly [number, number];
  const all = toNumbers(indices);
  const sorted = [...new Set(all)].toSorted((a, b) => a - b);
  const outside = sorted.find((index) => index < 0 || index >= height);
  if (outside !== undefined) {
    throw new ShapeError(
      `The input ${name} holds ${outside}, but there are ${height} rows; give indices from 0 to ${height - 1}.`,
    );
  }
  const lacking = sorted.filter((index) => !kept.has(index));
  const pieces = together(lacking, Math.floor(MOST_BETWEEN / (weightBytes(table) / height)));
  const found = new Map(kept);
  const read = async ({ start, count }: { readonly start: number; readonly count: number }) => {
    const array = await readWeight(sliceRows(table, 0, start, count), noFile);
    const { data } = castArray(array, "float32");
    for (let row = 0; row < count; row++) {
      found.set(start + row, data.subarray(row * width, (row + 1) * width));
    }
  };
  for (let done = 0; done < pieces.length; done += AT_A_TIME) {
    await Promise.all(pieces.slice(done, done + AT_A_TIME).map(read));
  }
  looked.kept = new Map(sorted.map((index) => [index, found.get(index)!]));
  const values = new Float32Array(all.length * width);
  for (const [i, index] of all.entries()) values.set(found.get(index)!, i * width);
  return castArray(ndarray("float32", [...indices.shape, width], values), looked.input.dtype);
}

/** Sorted numbers as ranges, in which no two neighbours are more than `gap` apart. */
function together(sorted: readonly number[], gap: number) {
  const ranges: { start: number; count: number }[] = [];
  for (const index of sorted) {
    const last = ranges.at(-1);
    if (last && index - (last.start + last.count) <= gap) last.count = index + 1 - last.start;
    else ranges.push({ start: index, count: 1 });
  }
  return ranges;
}

function noFile(_: Uint8Array, path: string): never {
  throw new ShapeError(`The rows of a table that is fetched lie in the file ${path}.`);
}
