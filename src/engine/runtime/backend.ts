/**
 * The interface of every runtime, which compiles a graph to a program that runs on some device.
 */
import type { Graph } from "../graph/graph.ts";
import type { NdArray } from "../arrays/ndarray.ts";
import type { StoredWeight } from "./stored-weight.ts";

export interface Backend {
  /** The device: cpu, cuda, coreml, dml, webgpu or wasm. */
  readonly device: string;
  /**
   * Compiles a graph.
   *
   * @throws DeviceError if the device is not available or rejects the program
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
}

export interface CompileOptions {
  /**
   * Finds stored parameters, which become part of the program and never move. The others are given to each run by name, like
   * inputs.
   */
  readonly weights?: WeightSource;
  /**
   * Values that stay on the device between runs. Maps the name of each leaf to the name of the output that replaces it after a run.
   * They are neither given to `run` nor returned by it.
   */
  readonly state?: Readonly<Record<string, string>>;
  /** The initial value of every leaf named in `state`. */
  readonly initialState?: Readonly<Record<string, NdArray>>;
  /** Rearranges weights when the program is compiled: products are faster, but weights take twice the memory and the start is slower. */
  readonly prepack?: boolean;
  /**
   * Converts weights in float16 or bfloat16 during each run instead of once, when the program is compiled. They then take no more
   * memory than their file, but each run takes longer. Applies to the CPU in Node.
   */
  readonly convertEachRun?: boolean;
  /** Number of threads for CPU work; the number of cores by default. */
  readonly threads?: number;
}

export interface Program {
  /**
   * Runs the program once.
   *
   * @param inputs host data by leaf name; every batch dimension must agree
   * @throws ShapeError if an input is missing, unknown, or of another shape or dtype
   */
  run(
    inputs: Readonly<Record<string, NdArray>>,
    options?: RunOptions,
  ): Promise<Record<string, NdArray>>;
  /** Returns copies of the state values, by leaf name. */
  readState(): Promise<Record<string, NdArray>>;
  /**
   * Replaces the named state values, which the next run starts from; the other values stay as they are.
   *
   * @throws ShapeError when a name is not part of the state, or its value has another shape or dtype
   */
  writeState(values: Readonly<Record<string, NdArray>>): Promise<void>;
  /** Frees the memory of this program. A disposed program cannot run. */
  dispose(): Promise<void>;
}

export interface RunOptions {
  /** Aborts the run. A run in a worker stops at once; elsewhere only a run that has not started can be aborted. */
  readonly signal?: AbortSignal;
}

/** Finds the stored weight of a parameter by its checkpoint key; undefined if the parameter is given to each run. */
export type WeightSource = (name: string) => StoredWeight | undefined;
