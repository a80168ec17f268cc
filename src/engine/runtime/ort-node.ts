/**
 * ONNX Runtime in Node: the CPU, and the accelerators that its build for this platform holds.
 */
import { realpathSync } from "node:fs";
import { dirname, relative, sep } from "node:path";
import { InferenceSession, listSupportedBackends, Tensor } from "onnxruntime-node";
import { DeviceError } from "../errors.ts";
import type { Backend, CompileOptions } from "./backend.ts";
import { compileProgram, messageOf, type Mount, type OrtRuntime } from "./ort-program.ts";

export const nodeDevices = ["cpu", "cuda", "coreml", "dml", "webgpu"] as const;

export type NodeDevice = (typeof nodeDevices)[number];

/** How to get a device that is not there. */
const remedies: { readonly [D in NodeDevice]: string } = {
  cpu: "reinstall onnxruntime-node",
  cuda: "it needs Linux on x64 with an NVIDIA GPU, and onnxruntime-node installed with ONNXRUNTIME_NODE_INSTALL=cuda12",
  coreml: "it needs macOS on Apple silicon",
  dml: "it needs Windows with a DirectX 12 GPU",
  webgpu: "it needs a GPU with a Vulkan, Metal or Direct3D 12 driver",
};

/**
 * A backend that runs programs in this process.
 *
 * @example const program = await nodeBackend("cpu").compile(graph);
 * @throws DeviceError when ONNX Runtime has no such device here
 */
export function nodeBackend(device: NodeDevice = "cpu"): Backend {
  if (!listSupportedBackends().some(({ name }) => name === device)) {
    throw new DeviceError(
      `The device ${device} is not available on ${process.platform} ${process.arch}: ${remedies[device] ?? `expected one of ${nodeDevices.join(", ")}`}.`,
    );
  }
  const runtime: OrtRuntime = {
    device,
    Tensor,
    stateLocation: "host-buffers",
    mount: mountFiles,
    createSession: (model, mount, options) => createSession(device, model, mount, options),
  };
  return { device, compile: (graph, options) => compileProgram(runtime, graph, options) };
}

/**
 * ONNX Runtime takes weights only from inside one folder, so that is the deepest one that holds all
 * files. Links are followed first: the Hugging Face cache is made of them, and ONNX Runtime refuses
 * to leave the folder through one.
 */
function mountFiles(paths: readonly string[]): Mount {
  const real = new Map(paths.map((path) => [path, realpathSync(path)]));
  const folders = [...real.values()].map(dirname);
  const [first = "."] = folders;
  const parts = first.split(sep);
  while (!folders.every((folder) => `${folder}${sep}`.startsWith(`${parts.join(sep)}${sep}`))) {
    if (parts.length === 0) {
      throw new DeviceError(
        `Weights in ${folders.join(" and ")} lie on different drives; put them on one.`,
      );
    }
    parts.pop();
  }
  const folder = parts.join(sep) || sep;
  return {
    files: [...real.values()],
    folder,
    locate: (path) => relative(folder, real.get(path) ?? path),
  };
}

async function createSession(
  device: NodeDevice,
  model: Uint8Array,
  mount: Mount,
  options: CompileOptions,
) {
  const { prepack = false, threads } = options;
  try {
    return await InferenceSession.create(model, {
      executionProviders: [device],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
      extra: {
        session: {
          disable_prepacking: prepack ? "0" : "1",
          // Threads may spin between the ops of a run, which is short, but not after it.
          force_spinning_stop: "1",
          ...(mount.folder === undefined
            ? {}
            : { model_external_initializers_file_folder_path: mount.folder }),
        },
      },
    });
  } catch (error) {
    if (device === "cpu") throw error;
    throw new DeviceError(`${messageOf(error)} (${remedies[device]})`, { cause: error });
  }
}
