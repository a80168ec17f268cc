/**
 * What every runtime offers: a graph goes in, a program that runs on some device comes out.
 */
import type { Graph } from "../graph/graph.ts";
import type { NdArray } from "../arrays/ndarray.ts";
import type { StoredWeight } from "./stored-weight.ts";

export interface Backend {
  /** The device: cpu, cuda, coreml, dml, webgpu or wasm. */
  readonly device: string;
  /**
   * Makes a graph ready to run.
   *
   * @throws DeviceError when the device is missing or refuses the program
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
}

export interface CompileOptions {
  /**
   * Where parameters come from. Those it knows become part of the program and never move;
   * the others are given to each run by name, like inputs.
   */
  readonly weights?: WeightSource;
  /**
   * Values that stay on the device from one run to the next: leaf name → name of the output that
   * replaces it after each run. They are neither given to `run` nor returned by it.
   */
  readonly state?: Readonly<Record<string, string>>;
  /** First value of every leaf named in `state`. */
  readonly initialState?: Readonly<Record<string, NdArray>>;
  /** Rearrange weights for speed when the program is made: faster products, but a second copy of them in memory and a slower start. */
  readonly prepack?: boolean;
  /**
   * Convert weights in float16 or bfloat16 anew in each run, on the CPU in Node, and not once when the program is made:
   * then they take no more memory than their file, and each run longer.
   */
  readonly convertEachRun?: boolean;
  /** Threads for CPU work; as many as there are cores unless given. */
  readonly threads?: number;
}

export interface Program {
  /**
   * Runs once.
   *
   * @param inputs host data by leaf name; every batch dimension must agree
   * @throws ShapeError when an input is missing, unknown, or of another shape or dtype
   */
  run(
    inputs: Readonly<Record<string, NdArray>>,
    options?: RunOptions,
  ): Promise<Record<string, NdArray>>;
  /** Copies of the state, by leaf name. */
  readState(): Promise<Record<string, NdArray>>;
  /**
   * Replaces the named state values, which the next run starts from; the other values stay as they are.
   *
   * @throws ShapeError when a name is not part of the state, or its value has another shape or dtype
   */
  writeState(values: Readonly<Record<string, NdArray>>): Promise<void>;
  /** Gives memory back; other programs go on. Running a disposed program throws. */
  dispose(): Promise<void>;
}

export interface RunOptions {
  /** Abandons the run. A run inside a worker really stops; elsewhere it is dropped before it starts. */
  readonly signal?: AbortSignal;
}

/** Finds the stored weight of a parameter by its checkpoint key; undefined if the parameter is given to each run. */
export type WeightSource = (name: string) => StoredWeight | undefined;
