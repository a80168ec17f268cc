/**
 * Runs a plan in an ONNX Runtime session, the same in Node and in the browser: wraps host data as
 * runtime tensors, carries state from run to run, unwraps outputs.
 */
import type { Tensor as OrtTensor, TensorConstructor } from "onnxruntime-common";
import { type DataOf, type DType, viewOf } from "../arrays/dtype.ts";
import { type NdArray, zeros } from "../arrays/ndarray.ts";
import { DeviceError } from "../errors.ts";
import type { Executor, Plan, StateSlot } from "./executor.ts";

/** The part of a session that running a plan needs. */
export interface OrtSession {
  run(
    feeds: Readonly<Record<string, OrtTensor>>,
    fetches: Readonly<Record<string, OrtTensor | null>>,
  ): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}

/** What differs between ONNX Runtime's builds. */
export interface OrtRuntime {
  readonly device: string;
  readonly Tensor: TensorConstructor;
  createSession(plan: Plan): Promise<OrtSession>;
  /**
   * Where state lives between runs. "host-buffers": two arrays that take turns as input and output,
   * so that no step allocates; "returned": the tensors that the last run returned, on the host or,
   * where the session was told to leave them there, on the device.
   */
  readonly stateLocation: "host-buffers" | "returned";
}

/** @throws DeviceError when the session cannot be made */
export async function openOrtExecutor(runtime: OrtRuntime, plan: Plan): Promise<Executor> {
  const session = await openSession(runtime, plan);
  const state = createState(runtime, plan.state);
  // Not the plan itself: it holds the first values of the state, which need no longer be kept.
  const { feeds: fed, outputs: returned } = plan;
  return {
    async run(inputs) {
      const feeds: Record<string, OrtTensor> = {};
      for (const name of fed) feeds[name] = state.feed(name) ?? toOrt(runtime, inputs[name]!);
      const fetches: Record<string, OrtTensor | null> = state.fetches();
      for (const { name } of returned) fetches[name] = null;
      const results = await session.run(feeds, fetches);
      state.advance(results);
      const outputs: Record<string, NdArray> = {};
      for (const { name, dtype } of returned) {
        outputs[name] = await fromOrt(results[name]!, dtype);
        results[name]!.dispose();
      }
      return outputs;
    },
    readState: () => state.read(),
    writeState: async (values) => state.write(values),
    async dispose() {
      state.dispose();
      await session.release();
    },
  };
}

async function openSession(runtime: OrtRuntime, plan: Plan): Promise<OrtSession> {
  try {
    return await runtime.createSession(plan);
  } catch (error) {
    throw new DeviceError(`The device ${runtime.device} refused the program: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function createState(runtime: OrtRuntime, planned: readonly StateSlot[]) {
  const onHost = runtime.stateLocation === "host-buffers";
  const current = new Map<string, OrtTensor>();
  /** Where the next run writes: another buffer, or the same one where nothing reads it any more. */
  const next = new Map<string, OrtTensor>();
  for (const { leaf, first, inPlace } of planned) {
    // A copy of its own: the caller's array must stay as it is.
    const tensor = toOrt(runtime, { ...first, data: first.data.slice() });
    current.set(leaf, tensor);
    if (onHost) next.set(leaf, inPlace ? tensor : toOrt(runtime, zeros(first.dtype, first.shape)));
  }
  const slots = planned.map(({ leaf, output, first }) => ({ leaf, output, dtype: first.dtype }));
  return {
    feed: (name: string): OrtTensor | undefined => current.get(name),
    fetches: (): Record<string, OrtTensor | null> =>
      Object.fromEntries(slots.map(({ leaf, output }) => [output, next.get(leaf) ?? null])),
    /** Takes a run's state outputs as the next run's inputs. */
    advance(results: Readonly<Record<string, OrtTensor>>): void {
      for (const { leaf, output } of slots) {
        const before = current.get(leaf)!;
        if (onHost) {
          current.set(leaf, next.get(leaf)!);
          next.set(leaf, before);
        } else {
          current.set(leaf, results[output]!);
          before.dispose();
        }
      }
      // What was written into our buffers is returned too, as copies that nobody wants.
      if (onHost) release(slots.map(({ output }) => copyIn(results[output]!)));
    },
    write(values: Readonly<Record<string, NdArray>>): void {
      for (const [leaf, value] of Object.entries(values)) {
        const before = current.get(leaf)!;
        const tensor = toOrt(runtime, { ...value, data: value.data.slice() });
        current.set(leaf, tensor);
        if (next.get(leaf) === before) next.set(leaf, tensor);
        before.dispose();
      }
    },
    async read(): Promise<Record<string, NdArray>> {
      const values: Record<string, NdArray> = {};
      for (const { leaf, dtype } of slots) {
        const array = await fromOrt(current.get(leaf)!, dtype);
        values[leaf] = { ...array, data: array.data.slice() };
      }
      return values;
    },
    dispose(): void {
      for (const tensor of new Set([...current.values(), ...next.values()])) tensor.dispose();
    },
  };
}

function copyIn({ data }: OrtTensor): ArrayBufferView<ArrayBuffer> {
  return data as Float32Array<ArrayBuffer>;
}

function toOrt(runtime: OrtRuntime, array: NdArray): OrtTensor {
  if (array.dtype === "bfloat16") {
    throw new DeviceError(
      "bfloat16 can be stored but not fed to a program; cast the array to float32.",
    );
  }
  return new runtime.Tensor(array.dtype, array.data as Float32Array, array.shape);
}

async function fromOrt(tensor: OrtTensor, dtype: DType): Promise<NdArray> {
  const data = (await tensor.getData()) as DataOf[DType];
  // Newer engines have Float16Array: its bits are what we keep.
  const own =
    dtype === "float16" && !(data instanceof Uint16Array)
      ? viewOf(
          dtype,
          (data as Float32Array).buffer as ArrayBuffer,
          (data as Float32Array).byteOffset,
          (data as Float32Array).length,
        )
      : data;
  return { dtype, shape: [...tensor.dims], data: own };
}

let nowhere: MessagePort | undefined;

/** Frees arrays that nothing will read again; they have no elements from then on. */
export function release(arrays: readonly ArrayBufferView<ArrayBuffer>[]): void {
  const buffers = new Set(arrays.map(({ buffer }) => buffer));
  // A transfer takes the memory from its owner, and what nobody receives is freed.
  nowhere ??= closedPort();
  nowhere.postMessage(null, [...buffers]);
}

function closedPort(): MessagePort {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  return port1;
}
