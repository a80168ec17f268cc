/** The training of this page, here or on the server: its plan, what it has reported, and what can be done with it. */
import { zipSync } from "fflate";
import type { TrainingJob } from "../../../src/server/wire.ts";
import type { Caller } from "../../../src/web/calls.ts";
import { backendOf, model, startWorker, wordsAddress } from "../engine.ts";
import { download } from "../parts/files.ts";
import { askTraining, cancelJob, hasServer, jobAt, modelList } from "../server/api.ts";
import { followTraining, modelFilesOf, submitTraining } from "../server/train.ts";
import { keptStore, store } from "../store.ts";
import type { StudioServices } from "../worker/services.ts";
import type { StudioTrainingNote } from "../worker/training.ts";
import type { TrainingPlan, TrainingSample, TrainingStep } from "./plan.ts";
import { rememberRun } from "./runs.ts";

export interface TrainingState {
  readonly status: "none" | "preparing" | "running" | "paused" | "done";
  readonly plan: Pick<TrainingPlan, "name" | "steps" | "captioned" | "prompts"> | undefined;
  /** The job of the server that trains; undefined where the page does. */
  readonly job: TrainingJob | undefined;
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
  job: undefined,
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

/** The plan of the page's own training, which its worker needs to go on. */
let ownPlan: TrainingPlan | undefined;

/** The server's job that this browser follows. */
const followed = keptStore<string>("patchwise-training-job", "", (id) => typeof id === "string");

/** Finds the training that an earlier visit left, on the server or in the browser. */
export async function findKept(): Promise<void> {
  if (training.get().status !== "none") return;
  if (hasServer && followed.get() !== "") {
    const job = await jobAt(followed.get()).catch(() => undefined);
    if (job?.kind === "train") {
      void followHere(job);
      return;
    }
    followed.set("");
  }
  const kept = await workerOf().call("kept", undefined);
  if (!kept) return;
  const { plan, losses, samples, step } = kept;
  ownPlan = plan;
  const status = step >= plan.steps ? "done" : "paused";
  training.set({ ...nothing, status, plan, losses, samples, saved: step });
}

export async function start(plan: TrainingPlan): Promise<void> {
  training.set({ ...nothing, status: "preparing", plan });
  if (!model.get().remote) {
    ownPlan = plan;
    await run(plan, false);
    return;
  }
  try {
    const job = await submitTraining(plan);
    followed.set(job.id);
    void followHere(job);
  } catch (error) {
    training.set({ ...nothing, problem: (error as Error).message });
  }
}

export async function resume(): Promise<void> {
  const { job } = training.get();
  training.patch({ status: "preparing", problem: undefined });
  if (job) await askTraining(job.id, "resume");
  else await run(ownPlan!, true);
}

export async function pause(): Promise<void> {
  const { job } = training.get();
  if (job) await askTraining(job.id, "pause");
  else stopping?.abort();
}

export async function sampleNow(): Promise<void> {
  const { job } = training.get();
  if (job) await askTraining(job.id, "sample");
  else await workerOf().call("sampleNow", undefined);
}

/** Ends the training and forgets it, here or on the server. */
export async function discard(): Promise<void> {
  const { job } = training.get();
  if (job) {
    followed.set("");
    training.set(nothing);
    // The first request ends a training that is not over, and the next one removes it.
    await cancelJob(job.id).catch(() => undefined);
    await cancelJob(job.id).catch(() => undefined);
    return;
  }
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
    if (ownPlan !== plan || training.get().status === "none") return;
    training.patch({ status: result.finished ? "done" : "paused", saved: result.step });
    if (result.finished) rememberRun(plan.name, training.get().losses);
  } catch (error) {
    training.patch({ status: "paused", problem: (error as Error).message });
  }
}

/** Shows a training of the server as it goes. */
async function followHere(first: TrainingJob): Promise<void> {
  const { name, config, samples } = first;
  const prompts = config.samples.of ?? samples[0]?.of ?? [];
  const plan = { name, steps: first.steps, captioned: prompts.length > 0, prompts };
  training.set({ ...nothing, ...shownJob(first), plan });
  const isShown = () => training.get().job?.id === first.id;
  const show = (fields: Partial<TrainingState>) => {
    if (isShown()) training.patch(fields);
  };
  try {
    await followTraining(first, {
      onJob: (job) => show(shownJob(job)),
      onStep: (step) => hearStep(step, isShown),
      onSample: (sample) => show({ samples: [...training.get().samples, sample] }),
      onParameters: (parameters) => show({ parameters }),
      onWarning: (message) => show({ warnings: [...training.get().warnings, message] }),
    });
    // Its model can be drawn with from now on.
    model.patch({ served: await modelList() });
    const isNew = first.state !== "succeeded";
    if (isNew && training.get().status === "done") rememberRun(name, training.get().losses);
  } catch (error) {
    show({ status: "paused", problem: (error as Error).message });
  }
}

function shownJob(job: TrainingJob): Partial<TrainingState> {
  const statuses = {
    queued: "preparing",
    running: "running",
    paused: "paused",
    succeeded: "done",
    failed: "paused",
    cancelled: "paused",
  } as const;
  return { job, status: statuses[job.state], saved: job.step, problem: job.error };
}

function hearStep(step: TrainingStep, isShown = () => true): void {
  if (!isShown()) return;
  const { losses } = training.get();
  training.patch({ last: step, losses: [...losses, [step.step, step.loss]] });
}

function hear(note: StudioTrainingNote): void {
  const { samples, warnings } = training.get();
  switch (note.kind) {
    case "started":
      training.patch({ parameters: note.parameters, status: "running" });
      return;
    case "step":
      hearStep(note.step);
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
  const { plan, job } = training.get();
  const files = job
    ? await modelFilesOf(job)
    : await workerOf().call("files", { words: wordsAddress, backend: backendOf("wasm") });
  const folder = Object.fromEntries(
    Object.entries(files).map(([file, bytes]) => [`${plan!.name}/${file}`, bytes]),
  );
  // Weights do not get smaller by compression.
  download(zipSync(folder, { level: 0 }), `${plan!.name}.zip`, "application/zip");
}
