/** The messages between the server and the process that trains. */
import type { Failure } from "../engine/runtime/worker-protocol.ts";
import type { TrainingConfig } from "../training/config/config.ts";

export type ToTraining =
  | {
      readonly kind: "train";
      readonly id: string;
      readonly config: TrainingConfig;
      /** The job's folder. */
      readonly folder: string;
    }
  /** Ends the training after the current step, with a checkpoint. */
  | { readonly kind: "stop" }
  /** Draws samples after the current step. */
  | { readonly kind: "sample" };

export type FromTraining = { readonly id: string } & (
  | {
      readonly kind: "step";
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
      readonly imagesPerSecond: number;
      readonly secondsLeft: number;
    }
  | { readonly kind: "started"; readonly parameters: number }
  | { readonly kind: "warning"; readonly message: string }
  | {
      readonly kind: "sampled";
      readonly step: number;
      readonly count: number;
      readonly of: readonly string[];
    }
  | { readonly kind: "trained"; readonly files: readonly string[] }
  /** It was stopped, and can go on. */
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly failure: Failure }
);
