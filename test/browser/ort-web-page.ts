/** Functions that ort-web.test.ts calls inside a page. */
import { toBfloat16, toFloat16 } from "../../src/engine/arrays/convert.ts";
import { type NdArray, ndarray, scalar, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import type { StoredWeight } from "../../src/engine/runtime/stored-weight.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import type { WebDevice } from "../../src/engine/runtime/ort-session-web.ts";
import { webBackend, type WebBackendOptions } from "../../src/engine/runtime/ort-web.ts";
import { batch } from "../../src/engine/graph/shape.ts";

function backendOf(device: WebDevice, options: Partial<WebBackendOptions> = {}): Backend {
  return webBackend({ device, wasmPaths: "/ort/", ...options });
}

const startWorker = (device: WebDevice) => () =>
  new Worker(`/worker-${device}.js`, { type: "module" });

/** Largest difference between what a linear layer with stored weights gives and what it should. */
export async function mountedWeights(
  device: WebDevice,
  dtype: "float32" | "float16" | "bfloat16" | "float64",
  form: "blob" | "bytes",
  worker: boolean,
): Promise<number> {
  const values = [0.5, -1, 2, 0.25, 4, -0.125];
  const encoded = {
    float32: () => new Float32Array(values),
    float16: () => Uint16Array.from(values, toFloat16),
    bfloat16: () => Uint16Array.from(values, toBfloat16),
    float64: () => new Float64Array(values),
  }[dtype]();
  // A header of a length that no dtype divides, as a safetensors file may have.
  const header = 13;
  const bytes = new Uint8Array(header + encoded.byteLength + 5).fill(0xff);
  bytes.set(new Uint8Array(encoded.buffer), header);
  const backend = backendOf(device, {
    files: (name) => (name === "model.safetensors" && form === "blob" ? new Blob([bytes]) : bytes),
    worker: worker && startWorker(device),
  });
  const program = await backend.compile(
    graphOf({ y: input("x", [batch, 3]).linear(parameter("layer.weight", [2, 3])) }),
    {
      weights: (): StoredWeight => ({
        kind: "file",
        path: "model.safetensors",
        offset: header,
        length: encoded.byteLength,
        dtype,
        shape: [2, 3],
      }),
    },
  );
  const { y } = await program.run({ x: ndarray("float32", [2, 3], [1, 0, 0, 1, 2, 3]) });
  await program.dispose();
  const expected = [0.5, 0.25, 4.5, 7.875];
  return Math.max(...toNumbers(y!).map((value, i) => Math.abs(value - expected[i]!)));
}

/** The rows that a program takes of a table in 16-bit floats, which a device may not compute with. */
export async function rowsOfTable(device: WebDevice): Promise<number[]> {
  const data = Uint16Array.from([0.5, -1, 2, 0.25, 4, -0.125], toFloat16);
  const rows = parameter("table", [3, 2]).gather(input("ids", [batch], "int64"));
  const program = await backendOf(device).compile(graphOf({ rows }), {
    weights: (): StoredWeight => ({
      kind: "array",
      array: ndarray("float16", [3, 2], data),
    }),
  });
  const outputs = await program.run({ ids: ndarray("int64", [2], [2, 0]) });
  await program.dispose();
  return toNumbers(outputs.rows!);
}

export async function missingFile(): Promise<void> {
  await backendOf("wasm").compile(graphOf({ y: parameter("w", [1]) }), {
    weights: () => ({
      kind: "file",
      path: "lost.safetensors",
      offset: 0,
      length: 4,
      dtype: "float32",
      shape: [1],
    }),
  });
}

/** A running sum of n numbers as state: total ← total + Σ x·ones. */
function counter(n: number) {
  const [total, x] = [input("total", [n]), input("x", [batch])];
  const next = total.add(x.sum());
  return graphOf({ next, first: next.slice(0, 0, 1) });
}

function compileCounter(backend: Backend, n: number) {
  return backend.compile(counter(n), {
    state: { total: "next" },
    initialState: { total: ndarray("float32", [n], new Float32Array(n).fill(1)) },
  });
}

const steps = (values: readonly number[]): NdArray =>
  ndarray("float32", [values.length], [...values]);

/** The first element after each run, the last element of the state, and the first element after two more runs, the second from a written state. */
export async function carriesState(device: WebDevice, worker: boolean): Promise<number[]> {
  const program = await compileCounter(
    backendOf(device, { worker: worker && startWorker(device) }),
    5,
  );
  const seen: number[] = [];
  for (const values of [[1, 2], [3], [], [4]]) {
    seen.push(toNumbers((await program.run({ x: steps(values) })).first!)[0]!);
  }
  seen.push(toNumbers((await program.readState()).total!).at(-1)!);
  // Reading the state takes nothing away from it.
  seen.push(toNumbers((await program.run({ x: steps([5]) })).first!)[0]!);
  await program.writeState({ total: ndarray("float32", [5], new Float32Array(5).fill(100)) });
  seen.push(toNumbers((await program.run({ x: steps([1]) })).first!)[0]!);
  await program.dispose();
  return seen;
}

/** Bytes that come back from the GPU in three runs of a program whose state has 400,000 bytes. */
export async function bytesReadBack(): Promise<number> {
  const program = await compileCounter(backendOf("webgpu"), 100_000);
  await program.run({ x: steps([1]) });
  interface Buffer {
    readonly size: number;
    mapAsync: (this: Buffer, mode: number) => Promise<void>;
  }
  const { GPUBuffer } = globalThis as unknown as { GPUBuffer: { prototype: Buffer } };
  const { mapAsync } = GPUBuffer.prototype;
  let bytes = 0;
  GPUBuffer.prototype.mapAsync = function (mode) {
    bytes += this.size;
    return mapAsync.call(this, mode);
  };
  try {
    for (let i = 0; i < 3; i++) await program.run({ x: steps([1]) });
  } finally {
    GPUBuffer.prototype.mapAsync = mapAsync;
  }
  await program.dispose();
  return bytes;
}

/** Programs on both devices, made, run and disposed while others run. */
export async function interleaved(): Promise<number[]> {
  const backends = [backendOf("webgpu"), backendOf("wasm"), backendOf("webgpu")];
  const programs = await Promise.all(backends.map((backend) => compileCounter(backend, 3)));
  const first = programs.map((program) => program.run({ x: steps([1]) }));
  const [gone, ...left] = programs as [(typeof programs)[0], ...typeof programs];
  const results = await Promise.all([...first, gone.dispose()]);
  const again = await Promise.all(left.map((program) => program.run({ x: steps([2]) })));
  await Promise.all(left.map((program) => program.dispose()));
  const values = [...results, ...again].flatMap((outputs) => (outputs ? [outputs.first!] : []));
  return values.map((array) => toNumbers(array)[0]!);
}

/** Compares the buffer limits of ONNX Runtime's GPU device with those of the adapter. */
export async function deviceLimits(): Promise<[device: number, adapter: number][]> {
  const program = await compileCounter(backendOf("webgpu"), 1);
  await program.dispose();
  interface HasLimits {
    readonly limits: Readonly<Record<string, number>>;
  }
  const { env } = await import("onnxruntime-web/webgpu");
  const device = (await env.webgpu.device) as unknown as HasLimits;
  const { gpu } = navigator as unknown as { gpu: { requestAdapter(): Promise<HasLimits> } };
  const adapter = await gpu.requestAdapter();
  return ["maxBufferSize", "maxStorageBufferBindingSize"].map((name) => [
    device.limits[name]!,
    adapter.limits[name]!,
  ]);
}

/** The message of the error when `navigator.gpu` is replaced. */
export async function withoutAdapter(gpu: "absent" | "refusing"): Promise<string> {
  Object.defineProperty(navigator, "gpu", {
    configurable: true,
    value: gpu === "absent" ? undefined : { requestAdapter: async () => null },
  });
  try {
    await compileCounter(backendOf("webgpu"), 1);
    return "compiled";
  } catch (error) {
    return String(error);
  } finally {
    // The prototype's own property shows again.
    Reflect.deleteProperty(navigator, "gpu");
  }
}

export function unknownDevice(): void {
  webBackend({ device: "webgl" as WebDevice });
}

/** Enough products to be seen running. */
function longGraph() {
  const x = input("x", [256, 256]);
  let y = x;
  for (let i = 0; i < 200; i++) y = y.matmul(x).tanh();
  return graphOf({ y: y.sum() });
}

const longInput = () => ({
  x: ndarray("float32", [256, 256], new Float32Array(256 * 256).fill(0.01)),
});

/** Longest time in ms that the page could do nothing else while a long program ran, and how long it ran. */
export async function pageStaysFree(): Promise<{ longestPause: number; total: number }> {
  const program = await backendOf("wasm", { worker: startWorker("wasm") }).compile(longGraph());
  let longestPause = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longestPause = Math.max(longestPause, performance.now() - last);
    last = performance.now();
  }, 1);
  const start = performance.now();
  await program.run(longInput());
  const total = performance.now() - start;
  clearInterval(timer);
  await program.dispose();
  return { longestPause, total };
}

/** Aborts a long run in a worker: how it ended and how long that took, in ms; and a whole run afterwards. */
export async function abandon(): Promise<{ error: string; ending: number; whole: number }> {
  const program = await backendOf("wasm", { worker: startWorker("wasm") }).compile(longGraph());
  const controller = new AbortController();
  const run = program.run(longInput(), { signal: controller.signal });
  const settled = run.then(() => "finished", String);
  await new Promise((resolve) => setTimeout(resolve, 10));
  let start = performance.now();
  controller.abort();
  const error = await settled;
  const ending = performance.now() - start;
  start = performance.now();
  await program.run(longInput());
  const whole = performance.now() - start;
  await program.dispose();
  return { error, ending, whole };
}

/** A worker whose script cannot be loaded. */
export async function brokenWorker(): Promise<void> {
  const worker = () => new Worker("/nowhere.js", { type: "module" });
  await backendOf("wasm", { worker }).compile(graphOf({ y: input("x", []).add(1) }));
}

export async function afterDispose(device: WebDevice): Promise<void> {
  const program = await compileCounter(backendOf(device), 1);
  await program.dispose();
  await program.run({ x: ndarray("float32", [1], scalar(1).data) });
}
