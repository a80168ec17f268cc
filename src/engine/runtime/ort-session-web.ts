/**
 * ONNX Runtime sessions in the browser, made from a plan: what a page and its workers share.
 *
 * Each device has a build of its own, loaded when it is first used: WebAssembly alone is half the
 * size of the one that also drives WebGPU.
 */
import type * as Ort from "onnxruntime-common";
import type { Executor, Plan } from "./executor.ts";
import { openOrtExecutor, type OrtSession } from "./ort-executor.ts";

export const webDevices = ["webgpu", "wasm"] as const;

export type WebDevice = (typeof webDevices)[number];

/** What a runtime is started with; plain data, so that a worker can be told. */
export interface WebRuntimeSettings {
  readonly device: WebDevice;
  /** URL of the folder that holds the `.wasm` and `.mjs` files of onnxruntime-web. */
  readonly wasmPaths?: string;
  readonly threads?: number;
}

const builds: { readonly [D in WebDevice]: () => Promise<typeof Ort> } = {
  webgpu: () => import("onnxruntime-web/webgpu"),
  wasm: () => import("onnxruntime-web/wasm"),
};

let last: Promise<unknown> = Promise.resolve();

/**
 * Lets calls into a runtime follow one another. Its files of weights are mounted for all sessions at
 * once, and the WebGPU build suspends inside of a call, in which another may not begin.
 */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const result = last.then(work);
  last = result.catch(() => undefined);
  return result;
}

/** @throws DeviceError when the runtime refuses the program */
export async function openWebExecutor(settings: WebRuntimeSettings, plan: Plan): Promise<Executor> {
  const { device } = settings;
  const { InferenceSession, Tensor, env } = await builds[device]();
  // Both are read once, when the first session is made.
  const { wasmPaths, threads = plan.threads ?? availableThreads() } = settings;
  env.wasm.numThreads = threads;
  if (wasmPaths !== undefined) env.wasm.wasmPaths = wasmPaths;
  env.webgpu.powerPreference = "high-performance";

  const executor = await inTurn(() =>
    openOrtExecutor(
      {
        device,
        Tensor,
        stateLocation: "returned",
        createSession: (given) => createSession(InferenceSession, device, given),
      },
      plan,
    ),
  );
  return {
    run: (inputs) => inTurn(() => executor.run(inputs)),
    readState: () => inTurn(() => executor.readState()),
    writeState: (values) => inTurn(() => executor.writeState(values)),
    dispose: () => inTurn(() => executor.dispose()),
  };
}

type Sessions = typeof Ort.InferenceSession;

async function createSession(
  sessions: Sessions,
  device: WebDevice,
  plan: Plan,
): Promise<OrtSession> {
  const session = await sessions.create(plan.model, sessionOptions(device, plan));
  return device === "wasm" ? session : withEmptyRuns(session, sessions, plan);
}

/** Many WebGPU kernels fail on an empty batch: such a run is left to the CPU, by a session made when it first comes. */
function withEmptyRuns(session: OrtSession, sessions: Sessions, plan: Plan): OrtSession {
  let onCpu: Promise<OrtSession> | undefined;
  return {
    async run(feeds, fetches) {
      const tensors = Object.values(feeds);
      if (tensors.every(({ size }) => size > 0)) return session.run(feeds, fetches);
      onCpu ??= sessions.create(plan.model, sessionOptions("wasm", plan));
      // Afterwards a tensor of state lies on the host, and goes back to the GPU when it is next fed.
      await Promise.all(tensors.map((tensor) => tensor.getData(true)));
      return (await onCpu).run(feeds, fetches);
    },
    async release() {
      await session.release();
      await (await onCpu)?.release();
    },
  };
}

function sessionOptions(device: WebDevice, plan: Plan): Ort.InferenceSession.SessionOptions {
  const { state, mount, prepack } = plan;
  const onDevice = device === "webgpu" && state.length > 0;
  return {
    executionProviders: [device],
    graphOptimizationLevel: "all",
    // Ops that run on the CPU because a device lacks them are expected, and would be warned of.
    logSeverityLevel: 3,
    externalData: Object.entries(mount.contents ?? {}).map(([path, data]) => ({ path, data })),
    ...(onDevice && {
      preferredOutputLocation: Object.fromEntries(
        state.map(({ output }) => [output, "gpu-buffer"] as const),
      ),
    }),
    extra: { session: { disable_prepacking: prepack ? "0" : "1" } },
  };
}

/** Wasm threads need memory that workers share, which only an isolated page has. */
function availableThreads(): number {
  return globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
}
