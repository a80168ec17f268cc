/**
 * Training in the page. The whole state is kept in IndexedDB, so that it survives a reload, and the pictures never leave the machine.
 */
import { del, get, set } from "idb-keyval";
import { webBackend } from "../../../src/engine/runtime/ort-web.ts";
import type { DrawnPicture } from "../../../src/pipelines/index.ts";
import { createPipeline, finished } from "../../../src/pipelines/index.ts";
import { averagesIn, type TrainingCheckpoint } from "../../../src/training/loop.ts";
import { readWords, type WordTable } from "../../../src/training/tasks/words.ts";
import {
  modelBytes,
  type TrainedModel,
  trainModel,
  type TrainModelOptions,
} from "../../../src/training/train-model.ts";
import { urlFolder } from "../../../src/weights/sources/folder-url.ts";
import { loadTokenizer } from "../../../src/text/tokenizer.ts";
import {
  settingsOfPlan,
  type TrainingPlan,
  type TrainingSample,
  type TrainingStep,
} from "../train/plan.ts";
import type { Served } from "../../../src/web/calls.ts";
import type { WorkerBackend } from "../../../src/web/services.ts";

/** What is kept of a training. */
export interface KeptTraining {
  readonly plan: TrainingPlan;
  readonly checkpoint: TrainingCheckpoint;
  readonly losses: readonly (readonly [step: number, loss: number])[];
  readonly samples: readonly TrainingSample[];
}

export type StudioTrainingNote =
  | { readonly kind: "started"; readonly parameters: number }
  | { readonly kind: "step"; readonly step: TrainingStep }
  | { readonly kind: "sample"; readonly sample: TrainingSample }
  | { readonly kind: "saved"; readonly step: number }
  | { readonly kind: "warning"; readonly message: string };

interface RunGiven {
  readonly plan: TrainingPlan;
  readonly backend: WorkerBackend;
  /** Address of the folder with the word table. */
  readonly words: string;
  /** Goes on with the kept training. */
  readonly resume: boolean;
}

export interface TrainingServices extends Record<string, Served> {
  readonly run: Served<
    RunGiven,
    { readonly finished: boolean; readonly step: number },
    StudioTrainingNote
  >;
  /** Asks the running training for pictures at its next step. */
  readonly sampleNow: Served<undefined, void>;
  /** What is kept, without its weights. */
  readonly kept: Served<
    undefined,
    (Omit<KeptTraining, "checkpoint"> & { readonly step: number }) | undefined
  >;
  readonly forget: Served<undefined, void>;
  /** The files of the kept model, as `patchwise train` writes them. */
  readonly files: Served<Pick<RunGiven, "words" | "backend">, Record<string, Uint8Array>>;
  /** Seconds of a step of this size on this machine. */
  readonly measure: Served<
    Omit<RunGiven, "resume">,
    { readonly seconds: number; readonly parameters: number }
  >;
}

const KEPT = "patchwise-training";
/** Steps between looks at whether pictures are due, or the state has to be kept. */
const LOOK_EVERY = 5;
/** Seconds between two times that the state is kept. */
const KEEP_EVERY = 20;

export function trainingServices(): TrainingServices {
  let asked = false;
  return {
    run: (given, { note, signal }) =>
      run(given, note, signal, () => {
        const now = asked;
        asked = false;
        return now;
      }),
    sampleNow: async () => {
      asked = true;
    },
    async kept() {
      const found = await get<KeptTraining>(KEPT);
      if (!found) return undefined;
      const { checkpoint, ...rest } = found;
      return { ...rest, step: checkpoint.step };
    },
    forget: () => del(KEPT),
    async files({ words, backend }) {
      const found = await get<KeptTraining>(KEPT);
      const { plan, checkpoint } = found!;
      const model = await modelAt(
        { plan, backend, words: await wordsFor(plan, words) },
        checkpoint,
      );
      return modelBytes(model);
    },
    async measure({ plan, backend, words }) {
      let [began, steps, parameters] = [0, 0, 0];
      await trainModel({
        ...optionsOf({ plan: { ...plan, steps: 4 }, backend, words: await wordsFor(plan, words) }),
        onEvent(event) {
          if (event.kind === "start") parameters = event.parameters;
          if (event.kind !== "step") return;
          // The first step waits for the program to be prepared.
          if (event.step === 1) began = performance.now();
          else steps = event.step - 1;
        },
      });
      return { seconds: (performance.now() - began) / 1000 / steps, parameters };
    },
  };
}

interface Prepared {
  readonly plan: TrainingPlan;
  readonly backend: WorkerBackend;
  readonly words: WordTable | undefined;
}

async function wordsFor(
  { captioned }: TrainingPlan,
  address: string,
): Promise<WordTable | undefined> {
  return captioned ? readWords(urlFolder(address)) : undefined;
}

function optionsOf({ plan, backend, words }: Prepared): TrainModelOptions {
  const { name, pictures, captioned } = plan;
  return {
    ...settingsOfPlan(plan),
    backend: webBackend(backend),
    name,
    pictures: captioned
      ? pictures
      : pictures.map((picture) => ({ ...picture, caption: undefined })),
    words,
    sampling: { steps: 12, guidance: 1 },
  };
}

/** The model of a checkpoint. */
async function modelAt(given: Prepared, checkpoint: TrainingCheckpoint): Promise<TrainedModel> {
  // A training that has no step left to do only assembles the model.
  const options = optionsOf({
    ...given,
    plan: { ...given.plan, steps: Math.max(1, checkpoint.step) },
  });
  return trainModel({ ...options, resumeFrom: checkpoint });
}

async function run(
  { plan, backend, words: address, resume }: RunGiven,
  note: (note: StudioTrainingNote) => void,
  signal: AbortSignal,
  isAsked: () => boolean,
): Promise<{ readonly finished: boolean; readonly step: number }> {
  const kept = resume ? await get<KeptTraining>(KEPT) : undefined;
  const losses = [...(kept?.losses ?? [])];
  const samples = [...(kept?.samples ?? [])];
  const prepared = { plan, backend, words: await wordsFor(plan, address) };
  let keptAt = performance.now();
  let sampler: ((checkpoint: TrainingCheckpoint) => Promise<readonly DrawnPicture[]>) | undefined;
  const keep = async (checkpoint: TrainingCheckpoint) => {
    await set(KEPT, { plan, checkpoint, losses, samples } satisfies KeptTraining);
    keptAt = performance.now();
    note({ kind: "saved", step: checkpoint.step });
  };
  const sample = async (checkpoint: TrainingCheckpoint) => {
    sampler ??= await samplerOf(prepared, checkpoint);
    const drawn = { step: checkpoint.step, pictures: await sampler(checkpoint) };
    samples.push(drawn);
    note({ kind: "sample", sample: drawn });
  };
  const result = await trainModel({
    ...optionsOf(prepared),
    resumeFrom: kept?.checkpoint,
    signal,
    onEvent(event) {
      if (event.kind === "start") note({ kind: "started", parameters: event.parameters });
      if (event.kind === "warning") note({ kind: "warning", message: event.message });
      if (event.kind !== "step") return;
      const { step, lossOfStep: loss, secondsLeft, imagesPerSecond } = event;
      losses.push([step, loss]);
      note({ kind: "step", step: { step, loss, secondsLeft, imagesPerSecond } });
    },
    checkpoint: {
      steps: LOOK_EVERY,
      async save(checkpoint) {
        if (isAsked() || checkpoint.step % plan.sampleEvery === 0) await sample(checkpoint);
        if (performance.now() - keptAt > 1000 * KEEP_EVERY) await keep(checkpoint);
      },
    },
  });
  const { checkpoint, finished: isFinished } = result;
  if (isFinished && samples.at(-1)?.step !== checkpoint.step) await sample(checkpoint);
  await keep(checkpoint);
  return { finished: isFinished, step: checkpoint.step };
}

/** Draws with the averages of a checkpoint, always with the same seeds. */
async function samplerOf(
  given: Prepared,
  first: TrainingCheckpoint,
): Promise<(checkpoint: TrainingCheckpoint) => Promise<readonly DrawnPicture[]>> {
  const { card, weights, tokenizerFile } = await modelAt(given, first);
  const tokenizer =
    tokenizerFile && loadTokenizer(JSON.parse(new TextDecoder().decode(tokenizerFile)));
  const { captioned, prompts } = given.plan;
  return async ({ state }) => {
    const pipeline = createPipeline({
      backend: webBackend(given.backend),
      card,
      // What is not trained, such as word vectors, is as it was at first.
      weights: { ...weights, ...averagesIn(state) },
      tokenizer,
    });
    try {
      if (!captioned) return await finished(pipeline.generate({ seed: 1, count: 4 }));
      const drawn: DrawnPicture[] = [];
      for (const prompt of prompts) {
        drawn.push(...(await finished(pipeline.generate({ prompt, seed: 1 }))));
      }
      return drawn;
    } finally {
      await pipeline.dispose();
    }
  };
}
