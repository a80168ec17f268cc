/** The entry point of the process that trains: one training, from its start or its last checkpoint. */
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import { tellParent } from "../engine/runtime/parent-node.ts";
import { failure } from "../engine/runtime/worker-protocol.ts";
import { modelFiles } from "../models/card.ts";
import { writePicture } from "../pictures/file-node.ts";
import { drawSamples } from "../pipelines/training-samples.ts";
import type { TrainingEvent } from "../training/loop.ts";
import { checkpointSteps } from "../training/run/run-folder-node.ts";
import { train } from "../training/run/train-node.ts";
import { untilUnlocked } from "../weights/sources/lock-node.ts";
import { sampleFile, trainingFolders } from "./job-store.ts";
import type { FromTraining, ToTraining } from "./training-messages.ts";
import { createFolder } from "../weights/sources/system-error-node.ts";

const stopping = new AbortController();
let isSampleAsked = false;

process.on("message", (message: ToTraining) => {
  if (message.kind === "train") void run(message);
  else if (message.kind === "stop") stopping.abort();
  else isSampleAsked = true;
});
// It ends with the server, and not before it: Ctrl-C, and those who stop services, signal both.
process.once("disconnect", () => process.exit());
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {});

/**
 * Milliseconds that the process of a server that was killed has to end: it hears of that only between two of its steps, and until then it
 * is at work in the folder in which this one goes on.
 */
const PREDECESSOR = 60_000;

type Training = Extract<ToTraining, { kind: "train" }>;

async function run({ id, config, folder }: Training): Promise<void> {
  const tell: (message: FromTraining) => void = tellParent;
  const out = join(folder, trainingFolders.model);
  const samples = join(folder, trainingFolders.samples);
  const backend = nodeBackend("cpu");
  let step = 0;
  const report = (event: TrainingEvent) => {
    if (event.kind === "start") tell({ kind: "started", id, parameters: event.parameters });
    if (event.kind === "warning") tell({ kind: "warning", id, message: event.message });
    if (event.kind !== "step") return;
    step = event.step;
    const { steps = step, lossOfStep: loss, imagesPerSecond, secondsLeft } = event;
    tell({ kind: "step", id, step, steps, loss, imagesPerSecond, secondsLeft });
  };
  try {
    await createFolder(samples);
    await untilUnlocked(out, PREDECESSOR);
    const draw = drawSamples(backend, async (pictures, of = []) => {
      for (const [i, picture] of pictures.entries()) {
        await writePicture(join(samples, sampleFile(step, i)), picture);
      }
      tell({ kind: "sampled", id, step, count: pictures.length, of });
    });
    const path = resolve(folder, trainingFolders.data);
    const { finished: isFinished } = await train(
      { ...config, data: { ...config.data, path } as typeof config.data },
      {
        backend,
        out,
        resume: (await checkpointSteps(join(out, "checkpoints"))).length > 0,
        draw,
        report,
        signal: stopping.signal,
        asksSamples: () => {
          const asked = isSampleAsked;
          isSampleAsked = false;
          return asked;
        },
      },
    );
    if (isFinished) tell({ kind: "trained", id, files: await filesOf(out) });
    else tell({ kind: "stopped", id });
  } catch (error) {
    tell({ kind: "failed", id, failure: failure(error) });
  }
}

/** The files of the model in its folder, which also holds checkpoints. */
async function filesOf(out: string): Promise<readonly string[]> {
  const found = await readdir(out);
  return Object.values(modelFiles).filter((name) => found.includes(name));
}
