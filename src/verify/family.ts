/** The interface by which a kind of model or process recomputes recorded outputs. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { Tolerance } from "./compare.ts";
import type { Recording } from "./recording.ts";

export interface Computed {
  /** Name of the recorded output in io.safetensors. */
  readonly name: string;
  readonly got: NdArray;
  readonly want: NdArray;
  /** Replaces the recording's own `tolerance.atol`. */
  readonly tolerance?: Tolerance;
}

/** Called only by families that run graphs, so that the others need no runtime. */
export type BackendSource = () => Promise<Backend>;

/**
 * Yields every recorded output once, in any order, and disposes of the programs it compiled.
 *
 * Throws a PatchwiseError if the recording is inconsistent.
 */
export type Family = (recording: Recording, backend: BackendSource) => AsyncIterable<Computed>;
