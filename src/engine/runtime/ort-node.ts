/**
 * ONNX Runtime in Node: the CPU, and the accelerators that its build for this platform holds.
 */
import { listSupportedBackends } from "onnxruntime-node";
import { DeviceError } from "../errors.ts";
import type { Backend } from "./backend.ts";
import { mountFiles } from "./mount-node.ts";
import { messageOf } from "./ort-executor.ts";
import { type NodeDevice, nodeDevices, openNodeExecutor } from "./ort-session-node.ts";
import type { OpenExecutor } from "./executor.ts";
import { compileProgram } from "./program.ts";
import { openInWorker } from "./worker-node.ts";

/** What each device needs. */
const remedies: { readonly [D in NodeDevice]: string } = {
  cpu: "reinstall the package onnxruntime-node",
  cuda: "it needs Linux on x64, an NVIDIA GPU with CUDA 12, and onnxruntime-node installed with ONNXRUNTIME_NODE_INSTALL=cuda12",
  coreml: "it needs macOS on Apple silicon",
  dml: "it needs Windows with a DirectX 12 GPU",
  webgpu: "it needs a GPU with a Vulkan, Metal or Direct3D 12 driver",
};

export interface NodeBackendOptions {
  /**
   * Run each program in a process of its own: the caller's event loop stays free, and
   * aborting a run stops it. Inputs and outputs are copied between the processes.
   */
  readonly worker?: boolean;
}

/**
 * A backend on one device of this machine.
 *
 * @example
 * const program = await nodeBackend("cpu").compile(graph);
 * const { y } = await program.run({ x });
 * @throws DeviceError when ONNX Runtime has no such device here
 */
export function nodeBackend(device: NodeDevice = "cpu", options: NodeBackendOptions = {}): Backend {
  requireDevice(device);
  const openHere: OpenExecutor = options.worker
    ? (plan) => openInWorker(device, plan)
    : (plan) => openNodeExecutor(device, plan);
  const open: OpenExecutor = async (plan) => {
    try {
      return await openHere(plan);
    } catch (error) {
      if (device === "cpu") throw error;
      throw new DeviceError(`${messageOf(error)} (${device}: ${remedies[device]})`, {
        cause: error,
      });
    }
  };
  return {
    device,
    compile: (graph, compileOptions = {}) =>
      compileProgram(graph, compileOptions, open, mountFiles),
  };
}

function requireDevice(device: string): asserts device is NodeDevice {
  const known = nodeDevices.find((name) => name === device);
  if (!known) {
    throw new DeviceError(
      `The device ${device} does not exist; expected one of ${nodeDevices.join(", ")}.`,
    );
  }
  if (!listSupportedBackends().some(({ name }) => name === device)) {
    throw new DeviceError(
      `The device ${device} is not available on ${process.platform} ${process.arch}: ${remedies[known]}.`,
    );
  }
}
