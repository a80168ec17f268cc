/** ONNX Runtime sessions in Node, which the main process and workers create from a plan. */
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { Executor, Plan } from "./executor.ts";
import { openOrtExecutor } from "./ort-executor.ts";

export const nodeDevices = ["cpu", "cuda", "coreml", "dml", "webgpu"] as const;

export type NodeDevice = (typeof nodeDevices)[number];

export function openNodeExecutor(device: NodeDevice, plan: Plan): Promise<Executor> {
  return openOrtExecutor(
    {
      device,
      Tensor,
      stateLocation: "host-buffers",
      createSession: (given) => createSession(device, given),
    },
    plan,
  );
}

function createSession(device: NodeDevice, plan: Plan): Promise<InferenceSession> {
  return InferenceSession.create(plan.model, {
    executionProviders: [device],
    graphOptimizationLevel: "all",
    // The arena keeps memory that one op freed for the next; fresh pages would cost a training step up to a fifth of its
    // time. Memory patterns would allocate a second block beside it: 1.9 GB instead of 1.1 GB for one training.
    enableCpuMemArena: true,
    enableMemPattern: false,
    logSeverityLevel: 3,
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
      // Otherwise the optimizer folds the casts of the weights, and holds all of them in float32.
      ...(plan.convertEachRun && {
        optimization: {
          constant_folding_max_output_size_in_bytes: String(2 ** 20),
          disable_specified_optimizers: "FuseFp16InitializerToFp32NodeTransformer",
        },
      }),
    },
  });
}
