/**
 * The two parts of a program: a plan, which is plain data and can be sent to a worker, and an executor, which runs the plan where it
 * was opened.
 */
import type { DType, NdArray } from "../arrays/ndarray.ts";
import type { Graph } from "../graph/graph.ts";
import { lower } from "../onnx/lower.ts";

/** The plan of a small graph without weights and state, for trying a device. */
export function trialPlan(graph: Graph): Plan {
  const outputs = Object.entries(graph.outputs).map(([name, { dtype }]) => ({ name, dtype }));
  return { ...lower(graph), outputs, state: [], mount: { files: {} }, prepack: false };
}

/** Everything that is needed to run a program. */
export interface Plan {
  /** The serialized ONNX model. */
  readonly model: Uint8Array;
  /** Names of the values that each run is given, including state. */
  readonly feeds: readonly string[];
  /** The values that a run returns, without state. */
  readonly outputs: readonly NamedType[];
  readonly state: readonly StateSlot[];
  /** The files with the model's weights. */
  readonly mount: Mount;
  readonly prepack: boolean;
  /** True if half-precision weights stay in their stored dtype and are converted in each run. */
  readonly convertEachRun?: boolean;
  readonly threads?: number;
}

export interface NamedType {
  readonly name: string;
  readonly dtype: DType;
}

/** A leaf whose value is replaced by an output after each run. */
export interface StateSlot {
  readonly leaf: string;
  readonly output: string;
  readonly first: NdArray;
  /** True if the output may be written into the leaf's memory, because every node that reads the leaf has run by then. */
  readonly inPlace: boolean;
}

/** The files with weights, by the locations that the model refers to. */
export interface Mount {
  /** Maps locations in the model to paths or names of files. */
  readonly files: Readonly<Record<string, string>>;
  /** The folder that locations are relative to, if there is a file system. */
  readonly folder?: string;
  /** Maps locations in the model to the contents of files, if there is no file system. */
  readonly contents?: Readonly<Record<string, Blob | Uint8Array<ArrayBuffer>>>;
}

/** Runs a plan. Inputs have been checked, and calls do not overlap. */
export interface Executor {
  run(
    inputs: Readonly<Record<string, NdArray>>,
    signal?: AbortSignal,
  ): Promise<Record<string, NdArray>>;
  readState(): Promise<Record<string, NdArray>>;
  writeState(values: Readonly<Record<string, NdArray>>): Promise<void>;
  dispose(): Promise<void>;
}

/** Opens a plan for running. */
export type OpenExecutor = (plan: Plan) => Promise<Executor>;
