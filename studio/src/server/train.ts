/** Trainings as jobs of the server. */
import { readPicture } from "../../../src/pictures/convert.ts";
import type { TrainingJob, TrainingRequest, TrainingSamples } from "../../../src/server/wire.ts";
import { settingsOfPlan, type TrainingPlan, type TrainingSample } from "../train/plan.ts";
import { fileAt, follow, submit } from "./api.ts";
import { base64Of } from "./base64.ts";

/** Hands a training in. @throws Error with the server's sentence */
export async function submitTraining(plan: TrainingPlan): Promise<TrainingJob> {
  const { pictures, name, captioned, steps, sampleEvery, prompts } = plan;
  const { network, ...training } = settingsOfPlan(plan);
  const request: TrainingRequest = {
    kind: "train",
    name,
    pictures: await Promise.all(
      pictures.map(async ({ caption, ...picture }) => ({
        image: await base64Of(picture),
        ...(captioned && { caption }),
      })),
    ),
    config: {
      picture: { size: [pictures[0]!.height, pictures[0]!.width] },
      model: network,
      training: { ...training, warmUp: Math.min(100, Math.round(steps / 10)) },
      sampling: { steps: 12, guidance: 1 },
      samples: {
        steps: sampleEvery,
        seed: 1,
        ...(captioned ? { of: [...prompts], each: 1 } : { each: 4 }),
      },
    },
  };
  return submit(request);
}

export interface TrainingListener {
  readonly onJob: (job: TrainingJob) => void;
  readonly onStep: (step: {
    readonly step: number;
    readonly loss: number;
    readonly secondsLeft: number;
    readonly imagesPerSecond: number;
  }) => void;
  readonly onSample: (sample: TrainingSample) => void;
  readonly onParameters: (parameters: number) => void;
  readonly onWarning: (message: string) => void;
}

/** Follows a training to its end, also while it is paused. */
export async function followTraining(job: TrainingJob, listener: TrainingListener): Promise<void> {
  /** Samples are loaded one after another. */
  let shown = Promise.resolve();
  const show = (samples: TrainingSamples) => {
    shown = shown.then(async () => listener.onSample(await sampleOf(samples)));
  };
  // The events hold those that are drawn from now on, and after a restart of the server no earlier ones.
  const earlier = new Set(job.samples.map(({ step }) => step));
  for (const each of job.samples) show(each);
  await follow(job, (event) => {
    if (event.kind === "job") listener.onJob(event.job);
    if (event.kind === "sample" && !earlier.has(event.step)) show(event);
    if (event.kind === "note") {
      if (event.parameters !== undefined) listener.onParameters(event.parameters);
      if (event.message !== undefined) listener.onWarning(event.message);
    }
    if (event.kind !== "progress") return;
    const { step, loss = NaN, secondsLeft = Infinity, imagesPerSecond = NaN } = event;
    listener.onStep({ step, loss, secondsLeft, imagesPerSecond });
  });
  await shown;
}

async function sampleOf({ step, urls }: TrainingSamples): Promise<TrainingSample> {
  const pictures = await Promise.all(
    urls.map(async (url) => {
      const bytes = new Uint8Array(await (await fileAt(url)).arrayBuffer());
      return { ...(await readPicture(bytes)), seed: 1 };
    }),
  );
  return { step, pictures };
}

/** The files of the model. */
export async function modelFilesOf(job: TrainingJob): Promise<Record<string, Uint8Array>> {
  const files = await Promise.all(
    job.files.map(
      async ({ name, url }) =>
        [name, new Uint8Array(await (await fileAt(url)).arrayBuffer())] as const,
    ),
  );
  return Object.fromEntries(files);
}
