/**
 * Runs a plan in an ONNX Runtime session, in Node and in the browser: converts host data to the runtime's tensors and back, and keeps
 * state between runs.
 */
import type { Tensor as OrtTensor, TensorConstructor } from "onnxruntime-common";
import { isFloat8 } from "../arrays/convert.ts";
import { type DataOf, type DType, type NdArray, viewOf, zeros } from "../arrays/ndarray.ts";
import { release } from "../arrays/release.ts";
import { DeviceError } from "../errors.ts";
import type { Executor, Plan, StateSlot } from "./executor.ts";

/** The part of a session's interface that running a plan needs. */
export interface OrtSession {
  run(
    feeds: Readonly<Record<string, OrtTensor>>,
    fetches: Readonly<Record<string, OrtTensor | null>>,
  ): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}

/** The differences between the builds of ONNX Runtime. */
export interface OrtRuntime {
  readonly device: string;
  readonly Tensor: TensorConstructor;
  createSession(plan: Plan): Promise<OrtSession>;
  /**
   * Where state is kept between runs. With "host-buffers" two arrays alternate as input and output, so that no step allocates. With
   * "returned" it is kept in the tensors that the last run returned, on the host or, if the session leaves them there, on the device.
   */
  readonly stateLocation: "host-buffers" | "returned";
}

/** @throws DeviceError if the session cannot be created */
export async function openOrtExecutor(runtime: OrtRuntime, plan: Plan): Promise<Executor> {
  const session = await openSession(runtime, plan);
  const state = createState(runtime, plan.state);
  // The plan itself is not kept, because it holds the initial values of the state.
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
    if (error instanceof DeviceError) throw error;
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
  /** The buffer that the next run writes to: a second one, or the same one if it may be overwritten. */
  const next = new Map<string, OrtTensor>();
  for (const { leaf, first, inPlace } of planned) {
    // This is a copy, because the caller's array must not change.
    const tensor = toOrt(runtime, { ...first, data: first.data.slice() });
    current.set(leaf, tensor);
    if (onHost) next.set(leaf, inPlace ? tensor : toOrt(runtime, zeros(first.dtype, first.shape)));
  }
  const slots = planned.map(({ leaf, output, first }) => ({ leaf, output, dtype: first.dtype }));
  return {
    feed: (name: string): OrtTensor | undefined => current.get(name),
    fetches: (): Record<string, OrtTensor | null> =>
      Object.fromEntries(slots.map(({ leaf, output }) => [output, next.get(leaf) ?? null])),
    /** Makes the state outputs of a run the inputs of the next. */
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
      // ONNX Runtime also returns copies of what it wrote into the buffers, which are not needed.
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
  if (array.dtype === "bfloat16" || isFloat8(array.dtype)) {
    throw new DeviceError(
      `${array.dtype} can be stored but not fed to a program; cast the array to float32.`,
    );
  }
  return new runtime.Tensor(array.dtype, array.data as Float32Array, array.shape);
}

async function fromOrt(tensor: OrtTensor, dtype: DType): Promise<NdArray> {
  const data = (await tensor.getData()) as DataOf[DType];
  // Newer engines have a Float16Array, of which the bits are kept.
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
