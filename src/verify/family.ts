/**
 * How one kind of model or process computes anew what was recorded of it.
 */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { Tolerance } from "./compare.ts";
import type { Recording } from "./recording.ts";

export interface Computed {
  /** The name in io.safetensors of what it is compared with. */
  readonly name: string;
  readonly got: NdArray;
  readonly want: NdArray;
  /** Where the recording's own `tolerance.atol` does not apply. */
  readonly tolerance?: Tolerance;
}

/** Asked for only by families that run graphs, so that the others need no runtime at all. */
export type BackendSource = () => Promise<Backend>;

/**
 * Yields every recorded output once, in any order, and disposes of the programs it compiled.
 *
 * Throws a PatchwiseError where the recording does not make sense.
 */
export type Family = (recording: Recording, backend: BackendSource) => AsyncIterable<Computed>;
