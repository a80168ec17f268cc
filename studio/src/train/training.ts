/** The training of this page: its plan, what it has reported, and what can be done with it. */
import type { Caller } from "../../../src/web/calls.ts";
import { zipSync } from "fflate";
import { backendOf, startWorker, wordsAddress } from "../engine.ts";
import { download } from "../parts/files.ts";
import { store } from "../store.ts";
import type { StudioServices } from "../worker/services.ts";
import type {
  StudioTrainingNote,
  TrainingPlan,
  TrainingSample,
  TrainingStep,
} from "../worker/training.ts";

export interface TrainingState {
  readonly status: "none" | "preparing" | "running" | "paused" | "done";
  readonly plan: TrainingPlan | undefined;
  readonly parameters: number | undefined;
  readonly losses: readonly (readonly [step: number, loss: number])[];
  readonly samples: readonly TrainingSample[];
  readonly last: TrainingStep | undefined;
  readonly saved: number | undefined;
  readonly warnings: readonly string[];
  readonly problem: string | undefined;
}

const nothing: TrainingState = {
  status: "none",
  plan: undefined,
  parameters: undefined,
  losses: [],
  samples: [],
  last: undefined,
  saved: undefined,
  warnings: [],
  problem: undefined,
};

export const training = store<TrainingState>(nothing);

// Training keeps its worker busy; drawing goes on in others.
let worker: Caller<StudioServices> | undefined;
const workerOf = () => (worker ??= startWorker());
let stopping: AbortController | undefined;

/** Finds the training that an earlier visit left. */
export async function findKept(): Promise<void> {
  if (training.get().status !== "none") return;
  const kept = await workerOf().call("kept", undefined);
  if (!kept) return;
  const { plan, losses, samples, step } = kept;
  const status = step >= plan.steps ? "done" : "paused";
  training.set({ ...nothing, status, plan, losses, samples, saved: step });
}

export async function start(plan: TrainingPlan): Promise<void> {
  training.set({ ...nothing, status: "preparing", plan });
  await run(plan, false);
}

export async function resume(): Promise<void> {
  const { plan } = training.get();
  training.patch({ status: "preparing" });
  await run(plan!, true);
}

export function pause(): void {
  stopping?.abort();
}

export async function sampleNow(): Promise<void> {
  await workerOf().call("sampleNow", undefined);
}

/** Ends the training and forgets it. */
export async function discard(): Promise<void> {
  stopping?.abort();
  await workerOf().call("forget", undefined);
  training.set(nothing);
}

async function run(plan: TrainingPlan, goesOn: boolean): Promise<void> {
  const mine = new AbortController();
  stopping = mine;
  try {
    const result = await workerOf().call(
      "run",
      { plan, backend: backendOf("wasm"), words: wordsAddress, resume: goesOn },
      { signal: mine.signal, onNote: hear },
    );
    if (training.get().plan !== plan) return;
    training.patch({ status: result.finished ? "done" : "paused", saved: result.step });
  } catch (error) {
    training.patch({ status: "paused", problem: (error as Error).message });
  }
}

function hear(note: StudioTrainingNote): void {
  const { losses, samples, warnings } = training.get();
  switch (note.kind) {
    case "started":
      training.patch({ parameters: note.parameters, status: "running" });
      return;
    case "step":
      training.patch({ last: note.step, losses: [...losses, [note.step.step, note.step.loss]] });
      return;
    case "sample":
      training.patch({ samples: [...samples, note.sample] });
      return;
    case "saved":
      training.patch({ saved: note.step });
      return;
    case "warning":
      training.patch({ warnings: [...warnings, note.message] });
  }
}

/** Seconds that a plan takes on this machine, measured on a few steps of it. */
export async function measure(
  plan: TrainingPlan,
): Promise<{ readonly seconds: number; readonly parameters: number }> {
  const { seconds, parameters } = await workerOf().call("measure", {
    plan,
    backend: backendOf("wasm"),
    words: wordsAddress,
  });
  return { seconds: seconds * plan.steps, parameters };
}

/** The model as a ZIP archive of the folder that `patchwise generate --model` reads. */
export async function saveZip(): Promise<void> {
  const { plan } = training.get();
  const files = await workerOf().call("files", { words: wordsAddress, backend: backendOf("wasm") });
  const folder = Object.fromEntries(
    Object.entries(files).map(([file, bytes]) => [`${plan!.name}/${file}`, bytes]),
  );
  // Weights do not get smaller by compression.
  download(zipSync(folder, { level: 0 }), `${plan!.name}.zip`, "application/zip");
}
