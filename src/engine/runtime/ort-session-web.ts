/** ONNX Runtime sessions in the browser, which a page and its workers create from a plan. */
import { DeviceError } from "../errors.ts";
import { recordOf } from "../records.ts";
import { turns } from "../turns.ts";
import type * as Ort from "onnxruntime-common";
import type { Executor, Plan } from "./executor.ts";
import { openOrtExecutor, type OrtSession } from "./ort-executor.ts";

export const webDevices = ["webgpu", "wasm"] as const;

export type WebDevice = (typeof webDevices)[number];

/** The settings of a runtime; plain data that can be sent to a worker. */
export interface WebRuntimeSettings {
  readonly device: WebDevice;
  /** The URL of the folder with the `.wasm` and `.mjs` files of onnxruntime-web. */
  readonly wasmPaths?: string;
  readonly threads?: number;
}

/**
 * Serializes calls into a runtime. Mounted files of weights are shared by all sessions, and the WebGPU build suspends inside a call,
 * during which no other call may begin.
 */
const inTurn = turns();

/**
 * Opens a plan with the build of ONNX Runtime for its device.
 *
 * @throws DeviceError if the runtime rejects the program
 */
export async function openWebExecutor(
  { InferenceSession, Tensor, env }: typeof Ort,
  settings: WebRuntimeSettings,
  plan: Plan,
): Promise<Executor> {
  const { device } = settings;
  // Both are read once, when the first session is created.
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
  const session = await sessions
    .create(plan.model, sessionOptions(device, plan))
    .catch((error: unknown) => Promise.reject(withRemedy(error, device)));
  return device === "wasm" ? session : withEmptyRuns(session, sessions, plan);
}

/** ONNX Runtime says "no available backend found" where its file of WebAssembly cannot be loaded, for whatever reason. */
function withRemedy(error: unknown, device: WebDevice): unknown {
  const { message } = error as Error;
  if (!message.includes("no available backend found")) return error;
  const file = `ort-wasm-simd-threaded${device === "webgpu" ? ".asyncify" : ""}.wasm`;
  return new DeviceError(
    `ONNX Runtime could not load ${file} (${message.replace(/^.*?ERR: /s, "")}); serve this file and the .mjs of the same name from node_modules/onnxruntime-web/dist, and give the address of their folder as wasmPaths.`,
    { cause: error },
  );
}

/** Many WebGPU kernels fail on an empty batch. Such a run uses a session on the CPU, which is created when first needed. */
function withEmptyRuns(session: OrtSession, sessions: Sessions, plan: Plan): OrtSession {
  let onCpu: Promise<OrtSession> | undefined;
  return {
    async run(feeds, fetches) {
      const tensors = Object.values(feeds);
      if (tensors.every(({ size }) => size > 0)) return session.run(feeds, fetches);
      onCpu ??= sessions.create(plan.model, sessionOptions("wasm", plan));
      // Afterwards a state tensor is on the host, and moves back to the GPU when the next run reads it.
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
    // Hides the warnings about ops that run on the CPU because a device lacks them, which is expected.
    logSeverityLevel: 3,
    externalData: Object.entries(mount.contents ?? {}).map(([path, data]) => ({ path, data })),
    ...(onDevice && {
      preferredOutputLocation: recordOf(
        state.map(({ output }) => output),
        () => "gpu-buffer" as const,
      ),
    }),
    extra: { session: { disable_prepacking: prepack ? "0" : "1" } },
  };
}

/** WebAssembly threads need shared memory, which only a cross-origin isolated page has. */
function availableThreads(): number {
  return globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
}
