/** ONNX Runtime sessions in Node, which the main process and workers create from a plan. */
import { createRequire } from "node:module";
import type * as Ort from "onnxruntime-node";
import { DeviceError } from "../errors.ts";
import type { Executor, Plan } from "./executor.ts";
import { openOrtExecutor } from "./ort-executor.ts";

export const nodeDevices = ["cpu", "cuda", "coreml", "dml", "webgpu"] as const;

export type DeviceName = (typeof nodeDevices)[number];

/** Devices of which a machine may have several, numbered from 0. */
export const numberedDevices = ["cuda", "dml"] as const;

/** A device, or one of several, such as "cuda:1". */
export type NodeDevice = DeviceName | `${(typeof numberedDevices)[number]}:${number}`;

let loaded: typeof Ort | undefined;

/**
 * ONNX Runtime for Node, loaded on first use: bundlers then leave it alone, and a clear error says when its native files are missing.
 *
 * @throws DeviceError if it cannot be loaded
 */
export function loadOrt(): typeof Ort {
  try {
    return (loaded ??= quiet(createRequire(import.meta.url)("onnxruntime-node") as typeof Ort));
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    throw new DeviceError(
      `ONNX Runtime cannot be loaded (${reason}): install onnxruntime-node again, or, if a bundler or packer copied the program without the folder node_modules/onnxruntime-node/bin, add that folder (docs/apps.md shows how).`,
      { cause: error },
    );
  }
}

/** Errors reach the caller as exceptions; ONNX Runtime would also write them to stderr, with addresses and colours. */
function quiet(ort: typeof Ort): typeof Ort {
  ort.env.logLevel = "fatal";
  return ort;
}

export async function openNodeExecutor(device: NodeDevice, plan: Plan): Promise<Executor> {
  const { InferenceSession, Tensor } = loadOrt();
  return openOrtExecutor(
    {
      device,
      Tensor,
      stateLocation: "host-buffers",
      createSession: (given) => createSession(InferenceSession, device, given),
    },
    plan,
  );
}

function createSession(
  sessions: typeof Ort.InferenceSession,
  device: NodeDevice,
  plan: Plan,
): Promise<Ort.InferenceSession> {
  const [name, number] = device.split(":") as ["cuda" | "dml", string?];
  return sessions.create(plan.model, {
    executionProviders: [number === undefined ? device : { name, deviceId: Number(number) }],
    graphOptimizationLevel: "all",
    // The arena keeps memory that one op freed for the next; fresh pages would cost a training step up to a fifth of its
    // time. Memory patterns would allocate a second block beside it: 1.9 GB instead of 1.1 GB for one training.
    enableCpuMemArena: true,
    enableMemPattern: false,
    logSeverityLevel: 4,
    ...(plan.threads === undefined ? {} : { intraOpNumThreads: plan.threads }),
    extra: {
      session: {
        disable_prepacking: plan.prepack ? "0" : "1",
        // Threads may spin between the ops of a run, which takes little time, but not after it.
        force_spinning_stop: "1",
        ...(plan.mount.folder === undefined
          ? {}
          : { model_external_initializers_file_folder_path: plan.mount.folder }),
      },
      // Otherwise the optimizer folds the casts of the weights, and the scales of quantized ones, and holds all of them in float32.
      ...(plan.convertEachRun && {
        optimization: {
          constant_folding_max_output_size_in_bytes: String(2 ** 15),
          disable_specified_optimizers: "FuseFp16InitializerToFp32NodeTransformer",
        },
      }),
    },
  });
}
