/**
 * ONNX Runtime in Node: the CPU, and the accelerators that the build for this platform supports.
 */
import { realpathSync } from "node:fs";
import { dirname, relative, sep } from "node:path";
import { DeviceError } from "../errors.ts";
import { input } from "../graph/functional.ts";
import { type Graph, graphOf } from "../graph/graph.ts";
import type { Backend, CompileOptions, Program } from "./backend.ts";
import { type Executor, type Mount, type OpenExecutor, type Plan, trialPlan } from "./executor.ts";
import { kinds, requireOptions } from "../options.ts";
import { expandedWeights } from "./expanded-weights.ts";
import { withFetchedRows } from "./fetched-rows.ts";
import { fusedAttentionWorks } from "./fused-attention.ts";
import {
  type DeviceName,
  loadOrt,
  type NodeDevice,
  nodeDevices,
  numberedDevices,
  openNodeExecutor,
} from "./ort-session-node.ts";
import { compileProgram } from "./program.ts";
import { readFileRange } from "./read-file-node.ts";
import { type WeightFile, weightFile } from "./weight-file-node.ts";
import { fork } from "node:child_process";
import { moduleFile } from "../package-node.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

/** What each device requires. */
const remedies: { readonly [D in DeviceName]: string } = {
  cpu: "reinstall the package onnxruntime-node",
  cuda: "it needs Linux on x64, an NVIDIA GPU with CUDA 12, and onnxruntime-node installed with ONNXRUNTIME_NODE_INSTALL=cuda12",
  coreml: "it needs macOS on Apple silicon",
  dml: "it needs Windows with a DirectX 12 GPU",
  webgpu: "it needs a GPU with a Vulkan, Metal or Direct3D 12 driver",
};

export interface NodeBackendOptions {
  /**
   * Runs each program in a separate process, so that the caller's event loop stays free and a run can be aborted. Inputs and outputs
   * are copied between the processes.
   */
  readonly worker?: boolean;
  /** Threads for the CPU's work; as many as there are cores unless given. */
  readonly threads?: number | undefined;
}

/**
 * Creates a backend for one device of this machine.
 *
 * @example
 * const program = await nodeBackend("cpu").compile(graph);
 * const { y } = await program.run({ x });
 * @throws DeviceError if ONNX Runtime does not offer the device on this platform; UsageError for an option that does not exist
 */
export function nodeBackend(device: NodeDevice = "cpu", options: NodeBackendOptions = {}): Backend {
  const name = nameOfDevice(device);
  requireOptions<NodeBackendOptions>("nodeBackend", options, {
    worker: kinds.flag,
    threads: kinds.count,
  });
  const { threads } = options;
  const openHere: OpenExecutor = options.worker
    ? (plan) => openInWorker(device, plan)
    : (plan) => openNodeExecutor(device, plan);
  const open: OpenExecutor = async (plan) => {
    try {
      return await openHere(plan);
    } catch (error) {
      if (device === "cpu" || (await works(device))) throw error;
      throw new DeviceError(
        `The device ${device} cannot be used on this machine: ${remedies[name]}.`,
        { cause: error },
      );
    }
  };
  let attentionWorks: Promise<boolean> | undefined;
  const trustsAttention = async () =>
    device !== "webgpu" || (attentionWorks ??= fusedAttentionWorks(open));
  const compileHere = async (
    graph: Graph,
    { weights: stored = () => undefined, ...compileOptions }: CompileOptions,
  ): Promise<Program> => {
    let file: WeightFile | undefined;
    const storeFor = async (bytes: number) => (file = await weightFile(bytes, threads));
    try {
      const weights = await expandedWeights(graph, stored, readFileRange, storeFor);
      const program = await compileProgram(
        graph,
        { ...(threads !== undefined && { threads }), ...compileOptions, weights },
        open,
        mountFiles,
        trustsAttention,
      );
      if (!file) return program;
      // A mapped file can be deleted, but not on Windows, nor before a worker that is started again has opened it again.
      if (options.worker || process.platform === "win32") return withFile(program, file);
      file.remove();
      return program;
    } catch (error) {
      file?.remove();
      throw error;
    }
  };
  return {
    device: name,
    compile: (graph, compileOptions = {}) => withFetchedRows(graph, compileOptions, compileHere),
  };
}

/** A program that deletes its file of weights when it is disposed of. */
function withFile(program: Program, file: WeightFile): Program {
  return {
    ...program,
    async dispose() {
      await program.dispose();
      file.remove();
    },
  };
}

/** Returns true if the device runs a minimal program. If it does, a failure is due to the program, and otherwise to the machine. */
async function works(device: NodeDevice): Promise<boolean> {
  const plan = trialPlan(graphOf({ y: input("x", [1]).neg() }));
  try {
    const executor = await openNodeExecutor(device, plan);
    await executor.dispose();
    return true;
  } catch {
    return false;
  }
}

/** @throws DeviceError if there is no such device, or ONNX Runtime does not offer it on this platform */
function nameOfDevice(device: string): DeviceName {
  const [, before = device] = /^(\w+):\d+$/.exec(device) ?? [];
  const names: readonly DeviceName[] = before === device ? nodeDevices : numberedDevices;
  const known = names.find((name) => name === before);
  if (!known) {
    throw new DeviceError(
      `The device ${device} does not exist; expected one of ${nodeDevices.join(", ")}, or one of several, such as cuda:1.`,
    );
  }
  if (
    !loadOrt()
      .listSupportedBackends()
      .some(({ name }) => name === known)
  ) {
    throw new DeviceError(
      `The device ${known} is not available on ${process.platform} ${process.arch}: ${remedies[known]}.`,
    );
  }
  return known;
}

/**
 * Finds the deepest folder that holds all files with weights, because ONNX Runtime reads weights only from inside one folder. Symbolic
 * links are resolved first: the Hugging Face cache consists of them, and ONNX Runtime does not follow links out of the folder.
 *
 * @throws DeviceError if no folder holds all files, because they are on different drives on Windows
 */
function mountFiles(paths: readonly string[]): Mount {
  if (paths.length === 0) return { files: {} };
  const real = paths.map((path) => realpathSync(path));
  const folder = real.map(dirname).reduce(commonFolder);
  return {
    folder,
    files: Object.fromEntries(paths.map((path, i) => [relative(folder, real[i]!), path])),
  };
}

function commonFolder(a: string, b: string): string {
  const [left, right] = [a.split(sep), b.split(sep)];
  const differing = left.findIndex((part, i) => part !== right[i]);
  const shared = differing < 0 ? left : left.slice(0, differing);
  if (shared.length === 0) {
    throw new DeviceError(`Weights in ${a} and ${b} lie on different drives; put them on one.`);
  }
  return shared.join(sep) || sep;
}

/**
 * Opens a plan in a separate process. These are processes and not threads, because Node can end a thread only between two calls
 * into native code and crashes otherwise, and because a crash of the runtime is then limited to its own process.
 */
function openInWorker(device: NodeDevice, plan: Plan): Promise<Executor> {
  return openRemote(() => startWorker(device), plan);
}

function startWorker(device: NodeDevice): Remote {
  // "advanced" serialization preserves typed arrays.
  const child = fork(moduleFile("engine/runtime/worker-entry-node"), [device], {
    serialization: "advanced",
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const died = new Promise<never>((_, reject) => {
    // Each message that it does not hear any more is an error of its own.
    child.on("error", reject);
    child.once("exit", (code, signal) =>
      reject(
        new DeviceError(
          `The worker process of a program on ${device} ended by itself (${signal ?? `exit code ${code}`}).`,
        ),
      ),
    );
  });
  // An idle worker must not keep this process alive, but one that still has to answer must.
  const hold = (owes: boolean) => {
    child[owes ? "ref" : "unref"]();
    child.channel?.[owes ? "ref" : "unref"]();
  };
  return {
    died,
    port: {
      post: (message) => {
        hold(true);
        child.send(message);
      },
      listen: (onMessage) =>
        child.on("message", (message) => {
          hold(false);
          onMessage(message as Response);
        }),
    },
    terminate: async () => {
      hold(true);
      child.kill("SIGKILL");
      await exited;
    },
  };
}
