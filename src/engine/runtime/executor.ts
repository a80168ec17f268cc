/**
 * The two halves of a program: a plan, which is plain data and can be sent to a worker, and an
 * executor, which runs it wherever it was opened.
 */
import type { DType } from "../arrays/dtype.ts";
import type { NdArray } from "../arrays/ndarray.ts";

/** Everything that is needed to run a program. */
export interface Plan {
  /** A serialised ONNX model. */
  readonly model: Uint8Array;
  /** Names that each run is fed, state included. */
  readonly feeds: readonly string[];
  /** What a run returns, state not included. */
  readonly outputs: readonly NamedType[];
  readonly state: readonly StateSlot[];
  /** Where the model's weights lie. */
  readonly mount: Mount;
  readonly prepack: boolean;
  /** Whether half-precision weights stay as they are stored. */
  readonly convertEachRun?: boolean;
  readonly threads?: number;
}

export interface NamedType {
  readonly name: string;
  readonly dtype: DType;
}

/** A value that an output replaces after each run. */
export interface StateSlot {
  readonly leaf: string;
  readonly output: string;
  readonly first: NdArray;
  /** The output may overwrite the leaf's memory: whatever reads the leaf has run before it is written. */
  readonly inPlace: boolean;
}

/** Files that hold weights, as the model refers to them. */
export interface Mount {
  /** Location in the model → path or name of the file. */
  readonly files: Readonly<Record<string, string>>;
  /** The folder that locations begin at; none where there is no file system. */
  readonly folder?: string;
  /** Location in the model → what the file holds, where there is no file system. */
  readonly contents?: Readonly<Record<string, Blob | Uint8Array<ArrayBuffer>>>;
}

/** Runs a plan. Inputs are already checked, and calls do not overlap. */
export interface Executor {
  run(
    inputs: Readonly<Record<string, NdArray>>,
    signal?: AbortSignal,
  ): Promise<Record<string, NdArray>>;
  readState(): Promise<Record<string, NdArray>>;
  writeState(values: Readonly<Record<string, NdArray>>): Promise<void>;
  dispose(): Promise<void>;
}

/** Makes a plan ready to run. */
export type OpenExecutor = (plan: Plan) => Promise<Executor>;
