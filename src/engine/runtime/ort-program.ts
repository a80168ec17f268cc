/**
 * A Program around an ONNX Runtime session, the same in Node and in the browser: checks inputs,
 * wraps host data as runtime tensors, carries state from run to run, unwraps outputs.
 */
import type { InferenceSession, Tensor as OrtTensor, TensorConstructor } from "onnxruntime-common";
import { type DataOf, type DType, viewOf } from "../dtype.ts";
import { DeviceError, PatchwiseError, ShapeError } from "../errors.ts";
import { type Graph, leafName } from "../graph.ts";
import { type NdArray, zeros } from "../ndarray.ts";
import { lower, type Lowered } from "../onnx/lower.ts";
import { formatShape, matchBatch } from "../shape.ts";
import { simplify } from "../simplify.ts";
import type { Tensor } from "../tensor.ts";
import type { CompileOptions, Program, RunOptions, StoredWeight, WeightSource } from "./backend.ts";

/** What differs between ONNX Runtime's builds. */
export interface OrtRuntime {
  readonly device: string;
  readonly Tensor: TensorConstructor;
  /** Prepares the files that weights lie in, before the model that names them is written. */
  mount(files: readonly string[]): Mount;
  createSession(
    model: Uint8Array,
    mount: Mount,
    options: CompileOptions,
  ): Promise<InferenceSession>;
  /**
   * Where state lives between runs: "host-buffers" are two arrays that take turns as input and
   * output, "host" is whatever array a run returned, "device" never leaves the GPU.
   */
  readonly stateLocation: "host-buffers" | "host" | "device";
}

export interface Mount {
  readonly files: readonly string[];
  /** The folder that relative locations begin at; undefined where there is no file system. */
  readonly folder?: string;
  /** How the model refers to a file. */
  locate(path: string): string;
}

/**
 * Compiles a graph for a runtime.
 *
 * @throws DeviceError when the session cannot be made
 */
export async function compileProgram(
  runtime: OrtRuntime,
  graph: Graph,
  options: CompileOptions = {},
): Promise<Program> {
  const { weights = () => undefined, state: stateNames = {} } = options;
  const mount = runtime.mount(weightFiles(graph, weights));
  const lowered = lower(simplify(graph), (name) => relocate(weights(name), mount));
  const session = await createSession(runtime, lowered, mount, options);
  const isFed = (leaf: Tensor) => !weights(leafName(leaf)) || leaf.node.op === "input";
  const declared = new Map(
    [...graph.inputs, ...graph.parameters].filter(isFed).map((leaf) => [leafName(leaf), leaf]),
  );
  const state = createState(runtime, graph, declared, options);
  const returned = Object.keys(graph.outputs).filter(
    (name) => !Object.values(stateNames).includes(name),
  );
  let disposed = false;
  // Runs of one program follow one another: state must not be read while it is being replaced.
  let last: Promise<unknown> = Promise.resolve();

  const runOnce = async (inputs: Readonly<Record<string, NdArray>>, { signal }: RunOptions) => {
    if (disposed)
      throw new PatchwiseError(
        "This program was disposed and cannot run again; compile the graph anew.",
      );
    signal?.throwIfAborted();
    checkInputs(declared, stateNames, inputs);
    const feeds: Record<string, OrtTensor> = {};
    for (const name of lowered.feeds) {
      feeds[name] = state.feed(name) ?? toOrt(runtime, inputs[name]!);
    }
    const fetches: Record<string, OrtTensor | null> = state.fetches();
    for (const name of returned) fetches[name] = null;
    const results = await session.run(feeds, fetches);
    await state.advance(results);
    const outputs: Record<string, NdArray> = {};
    for (const name of returned)
      outputs[name] = await fromOrt(results[name]!, graph.outputs[name]!.dtype);
    return outputs;
  };

  return {
    run(inputs, runOptions = {}) {
      const result = last.then(() => runOnce(inputs, runOptions));
      last = result.catch(() => undefined);
      return result;
    },
    async readState() {
      await last;
      return state.read();
    },
    async dispose() {
      if (disposed) return;
      disposed = true;
      await last;
      state.dispose();
      await session.release();
    },
  };
}

function weightFiles(graph: Graph, weights: WeightSource): string[] {
  const files = graph.parameters.flatMap((parameter) => {
    const stored = weights(leafName(parameter));
    return stored?.kind === "file" ? [stored.path] : [];
  });
  return [...new Set(files)];
}

function relocate(stored: StoredWeight | undefined, mount: Mount): StoredWeight | undefined {
  return stored?.kind === "file" ? { ...stored, path: mount.locate(stored.path) } : stored;
}

async function createSession(
  runtime: OrtRuntime,
  lowered: Lowered,
  mount: Mount,
  options: CompileOptions,
) {
  try {
    return await runtime.createSession(lowered.model, mount, options);
  } catch (error) {
    throw new DeviceError(`The ${runtime.device} device refused the program: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface State {
  feed(name: string): OrtTensor | undefined;
  fetches(): Record<string, OrtTensor | null>;
  /** Takes a run's state outputs as the next run's inputs. */
  advance(results: Readonly<Record<string, OrtTensor>>): Promise<void>;
  read(): Promise<Record<string, NdArray>>;
  dispose(): void;
}

function createState(
  runtime: OrtRuntime,
  graph: Graph,
  declared: ReadonlyMap<string, Tensor>,
  { state = {}, initialState = {} }: CompileOptions,
): State {
  const current = new Map<string, OrtTensor>();
  const spare = new Map<string, OrtTensor>();
  for (const [leaf, output] of Object.entries(state)) {
    const first = initialState[leaf];
    const tensor = declared.get(leaf);
    if (!tensor || !graph.outputs[output] || !first) {
      throw new ShapeError(
        `State ${leaf} → ${output} needs a leaf, an output and a first value of these names.`,
      );
    }
    checkArray(leaf, tensor, first);
    // A copy of its own: buffers take turns, and the caller's array must stay as it is.
    const copy = { ...first, data: first.data.slice() } as NdArray;
    current.set(leaf, toOrt(runtime, copy));
    if (runtime.stateLocation === "host-buffers") {
      spare.set(leaf, toOrt(runtime, zeros(first.dtype, first.shape)));
    }
  }
  return {
    feed: (name) => current.get(name),
    fetches: () =>
      Object.fromEntries(
        Object.entries(state).map(([leaf, output]) => [output, spare.get(leaf) ?? null]),
      ),
    async advance(results) {
      for (const [leaf, output] of Object.entries(state)) {
        const before = current.get(leaf)!;
        current.set(leaf, results[output]!);
        if (spare.has(leaf)) spare.set(leaf, before);
        else before.dispose();
      }
    },
    async read() {
      const values: Record<string, NdArray> = {};
      for (const [leaf, tensor] of current) {
        const array = await fromOrt(tensor, declared.get(leaf)!.dtype);
        values[leaf] = { ...array, data: array.data.slice() } as NdArray;
      }
      return values;
    },
    dispose() {
      for (const tensor of [...current.values(), ...spare.values()]) tensor.dispose();
      current.clear();
      spare.clear();
    },
  };
}

/** Every fed leaf is there once, and all agree on the batch size. */
function checkInputs(
  declared: ReadonlyMap<string, Tensor>,
  state: Readonly<Record<string, string>>,
  inputs: Readonly<Record<string, NdArray>>,
): void {
  for (const name of Object.keys(inputs)) {
    if (!declared.has(name) || name in state) {
      throw new ShapeError(
        `The program has no input ${name}; it takes ${[...declared.keys()].filter((known) => !(known in state)).join(", ") || "none"}.`,
      );
    }
  }
  let batchSize: number | undefined;
  for (const [name, tensor] of declared) {
    if (name in state) continue;
    const array = inputs[name];
    if (!array) {
      throw new ShapeError(
        `The input ${name} is missing: ${tensor.dtype} ${formatShape(tensor.shape)}.`,
      );
    }
    const found = checkArray(name, tensor, array);
    if (found !== undefined && batchSize !== undefined && found !== batchSize) {
      throw new ShapeError(
        `The input ${name} has shape ${formatShape(array.shape)}, a batch of ${found}, but inputs before it have a batch of ${batchSize}.`,
      );
    }
    batchSize ??= found;
  }
}

function checkArray(name: string, tensor: Tensor, array: NdArray): number | undefined {
  const match = matchBatch(tensor.shape, array.shape);
  if ("mismatch" in match || tensor.dtype !== array.dtype) {
    throw new ShapeError(
      `The input ${name} is ${array.dtype} ${formatShape(array.shape)}, expected ${tensor.dtype} ${formatShape(tensor.shape)}.`,
    );
  }
  return match.batchSize;
}

function toOrt(runtime: OrtRuntime, array: NdArray): OrtTensor {
  if (array.dtype === "bfloat16") {
    throw new DeviceError(
      "bfloat16 can be stored but not fed to a program; cast the array to float32.",
    );
  }
  return new runtime.Tensor(array.dtype, array.data as Float32Array, array.shape) as OrtTensor;
}

async function fromOrt(tensor: OrtTensor, dtype: DType): Promise<NdArray> {
  const data = (await tensor.getData()) as DataOf[DType];
  // Newer engines have Float16Array: its bits are what we keep.
  const own =
    dtype === "float16" && !(data instanceof Uint16Array)
      ? viewOf(dtype, data.buffer as ArrayBuffer, data.byteOffset, data.length)
      : data;
  return { dtype, shape: [...tensor.dims], data: own };
}
