/**
 * The folder of a training: its config, its checkpoints and the trained model. A new training never overwrites another one.
 *
 * A checkpoint is a folder such as `checkpoints/step-00001200` with the whole state, from which a training resumes bit for
 * bit. It is renamed to that name once all of it is on disk, so every checkpoint that can be seen is complete.
 */
import { tryJson } from "../../engine/bytes.ts";
import { mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import * as z from "zod";
import { counted, FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import { mapValues } from "../../engine/records.ts";
import { castWeights, type NdArray } from "../../engine/arrays/ndarray.ts";
import { modelFiles } from "../../models/card.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { readTensor } from "../../weights/safetensors/safetensors.ts";
import { writeFileAtomic, writeJson } from "../../weights/sources/atomic-node.ts";
import { type Closable, closing } from "../../weights/sources/closing.ts";
import { lockFolder } from "../../weights/sources/lock-node.ts";
import {
  createFolder,
  describeSystemError,
  ifThere,
  makeFolders,
  system,
} from "../../weights/sources/system-error-node.ts";
import { type DenoiserConfig, flattened } from "../config/config.ts";
import type { DataSource } from "../loop.ts";
import type { DenoiserTask } from "../tasks/denoiser.ts";
import type { TrainedModel } from "../train-model.ts";
import type { FolderTask, TrainContext } from "./train-node.ts";

export interface RunFolder {
  readonly path: string;
  readonly checkpoints: string;
  readonly samples: string;
  /** True if the training began when no pictures were held out unless its config named some. */
  readonly heldNothing: boolean;
  /** The checkpoint from which the training resumes. */
  readonly from: Checkpoint | undefined;
  /**
   * Creates the folder of a new training, and locks it until the result is closed. Called last, once everything else has been
   * checked.
   */
  begin(): Promise<Closable>;
  /**
   * Writes a checkpoint as `writeCheckpoint` does.
   *
   * @throws PatchwiseError when it cannot be written, which names the folder that it was written to instead, if that was possible
   */
  save(progress: Progress, state: Readonly<Record<string, NdArray>>, keep: number): Promise<void>;
}

/** The config, with its defaults filled in. */
const configFile = "config.json";

/**
 * Fields that may change when a training resumes. A new length also moves the decay of the learning rate, so only the same
 * length gives the same weights.
 */
const free = [
  "name",
  "latents.cache",
  "training.threads",
  "training.shardOptimizer",
  "training.unknownWords",
  "data.undescribed",
].concat(["steps", "minutes", "compute"].map((field) => `training.${field}`));
const freeParts = ["checkpoint.", "samples.", "log.", "validation.", "sampling."];

/**
 * Opens the folder of a new training, or of one that resumes.
 *
 * @throws UsageError when the folder belongs to another training, when there is nothing to resume, or when the config differs
 * from the one that the training started with; the message names the fields
 */
export async function openRunFolder(
  path: string,
  config: object,
  resume: boolean,
): Promise<RunFolder> {
  const checkpoints = join(path, "checkpoints");
  const [steps, before] = [await checkpointSteps(checkpoints), await readConfig(path)];
  if (before === undefined) {
    if (steps.length > 0) {
      throw new UsageError(
        `${path} holds a training of ${counted(steps.at(-1)!, "step")} without its ${configFile}, so it cannot be resumed; choose another folder with --out.`,
      );
    }
    if (resume) {
      throw new UsageError(
        `There is no training in ${path} to resume; leave out --resume to start one, or name its folder with --out.`,
      );
    }
  } else if (steps.length === 0) {
    // The training ended before its first checkpoint, so there is nothing to resume and nothing to lose.
  } else if (resume) {
    const changed = differences(before, JSON.parse(JSON.stringify(config)));
    if (changed.length > 0) {
      throw new UsageError(
        `The training in ${path} started with another config (${changed.join("; ")}); resume it with the same config, or start a new training in another folder with training.from: ${path}.`,
      );
    }
  } else {
    throw new UsageError(
      `${path} holds a training of ${counted(steps.at(-1)!, "step")}; resume it with --resume, or choose another folder with --out.`,
    );
  }
  const from = resume ? await readLastCheckpoint(checkpoints) : undefined;
  return {
    path,
    checkpoints,
    samples: join(path, "samples"),
    heldNothing: from !== undefined && !knowsHeldOut(before),
    from,
    async begin() {
      if (steps.length === 0) await create(path);
      const lock = await lockFolder(path);
      try {
        if (steps.length === 0) await writeJson(join(path, configFile), config);
      } catch (error) {
        await lock.close?.();
        throw error;
      }
      return lock;
    },
    async save(progress, state, keep) {
      try {
        if ((await readConfig(path)) === undefined) {
          throw new PatchwiseError(`The folder ${path} is gone, or its ${configFile} is.`);
        }
        await writeCheckpoint(checkpoints, progress, state, keep);
      } catch (error) {
        throw await savedElsewhere(error as Error, async () => {
          const other = await mkdtemp(join(tmpdir(), `${basename(resolve(path))}-`));
          await writeJson(join(other, configFile), config);
          await writeCheckpoint(join(other, "checkpoints"), progress, state, 1);
          return other;
        });
      }
    },
  };
}

/** Returns true if a config says which pictures are held out, as it does since a share of them is by default. */
function knowsHeldOut(config: unknown): boolean {
  const { validation = {} } = config as { readonly validation?: object };
  return "share" in validation || "data" in validation;
}

/** The error of a checkpoint, which tells where else the state is, if it could be written there. */
async function savedElsewhere(failure: Error, save: () => Promise<string>): Promise<Error> {
  const other = await save().catch(() => undefined);
  if (other === undefined) return failure;
  return new PatchwiseError(
    `${failure.message.replace(/\.$/, "")}; the training was written to ${other} instead, so resume it with --resume --out ${other}.`,
    { cause: failure },
  );
}

async function create(path: string): Promise<void> {
  await makeFolders(join(path, "samples")).catch((error: unknown) => {
    throw new UsageError(
      `The output folder ${path} cannot be created: ${describeSystemError(error)}; choose another with --out.`,
      { cause: error },
    );
  });
}

async function readConfig(path: string): Promise<unknown> {
  const file = join(path, configFile);
  const text = await ifThere(`read ${file}`, readFile(file, "utf8"), undefined);
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    throw new FormatError(
      `${file} is not valid JSON; restore the file that patchwise train wrote.`,
    );
  }
}

/** Describes the fields that differ, each with both values. */
function differences(before: unknown, now: unknown): string[] {
  const [old, current] = [flattened(before), flattened(now)];
  const fields = [...new Set([...old.keys(), ...current.keys()])];
  return fields
    .filter((field) => !free.includes(field) && !freeParts.some((part) => field.startsWith(part)))
    .filter((field) => old.get(field) !== current.get(field))
    .map(
      (field) =>
        `${field} was ${old.get(field) ?? "not set"} and is ${current.get(field) ?? "not set"}`,
    );
}

/**
 * Writes the files of a trained model to a folder, each under a temporary name first.
 *
 * @param dtype float16 halves the file of the weights
 * @example await saveModel("runs/mine", await trainModel({ pictures, steps: 1000, backend }));
 */
export async function saveModel(
  folder: string,
  { card, weights, tokenizerFile }: TrainedModel,
  dtype: "float32" | "float16" = "float32",
): Promise<void> {
  await createFolder(folder);
  const stored = mapValues(weights, (array) => castWeights(array, dtype));
  const file = join(folder, modelFiles.weights);
  await writeSafetensors(file, Object.entries(stored), [["format", "pt"]]);
  if (tokenizerFile) await writeFileAtomic(join(folder, modelFiles.tokenizer), tokenizerFile);
  await writeJson(join(folder, modelFiles.card), card);
}

/** Copies, in a training's folder, of the autoencoder whose latents or codes it learns. */
export const codecFiles = { kl: modelFiles.autoencoder, vq: modelFiles.vqgan } as const;

/** Draws the samples that a config asks for, with the averaged weights of a denoiser. */
export function sampleGrid(
  task: DenoiserTask,
  { samples }: Pick<DenoiserConfig, "samples">,
  { coder }: DataSource,
  { out, draw }: TrainContext,
): FolderTask["sample"] {
  return async (trained, averages) => {
    const model = {
      card: task.cardAt(trained),
      weights: await task.allWeights(averages),
      tokenizer: task.tokenizer,
      autoencoder: coder && (await openSafetensorsFile(join(out, codecFiles[coder.kind]))),
    };
    return draw!(model, { ...samples, of: task.sampled });
  };
}

const progressSchema = z.strictObject({
  /** Steps done. */
  step: z.int().min(0),
  /** Seconds of training, without pauses. */
  seconds: z.number().min(0),
});

type Progress = z.output<typeof progressSchema>;

export interface Checkpoint extends Progress {
  readonly path: string;
  /** Reads the whole state anew each time, because it is too large to keep. */
  readState(): Promise<Record<string, NdArray>>;
}

const checkpointFiles = { state: "state.safetensors", progress: "progress.json" } as const;
const unfinished = ".unfinished-";

/**
 * Writes a checkpoint, then removes all but the last `keep`.
 *
 * @throws PatchwiseError when the disk is full or not writable; the earlier checkpoints are kept
 */
export async function writeCheckpoint(
  folder: string,
  progress: Progress,
  state: Readonly<Record<string, NdArray>>,
  keep: number,
): Promise<void> {
  const path = join(folder, nameOf(progress.step));
  const temporary = join(folder, `${unfinished}${nameOf(progress.step)}`);
  // A killed training may have left unfinished checkpoints of other steps.
  for (const name of await namesIn(folder)) {
    if (name.startsWith(unfinished)) await rm(join(folder, name), { recursive: true, force: true });
  }
  try {
    await system(`create ${temporary}`, makeFolders(temporary));
    await writeSafetensors(join(temporary, checkpointFiles.state), Object.entries(state));
    await writeFileAtomic(
      join(temporary, checkpointFiles.progress),
      new TextEncoder().encode(`${JSON.stringify(progress)}\n`),
    );
    // The checkpoint exists already if the training went back to an older one.
    await rm(path, { recursive: true, force: true });
    await system(`rename ${temporary} to ${path}`, rename(temporary, path));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw error;
  }
  const steps = await checkpointSteps(folder);
  for (const step of steps.slice(0, -keep)) {
    await rm(join(folder, nameOf(step)), { recursive: true, force: true });
  }
}

/**
 * The last checkpoint, or undefined if there is none.
 *
 * @throws FormatError when the checkpoint is damaged
 */
async function readLastCheckpoint(folder: string): Promise<Checkpoint | undefined> {
  const step = (await checkpointSteps(folder)).at(-1);
  if (step === undefined) return undefined;
  const path = join(folder, nameOf(step));
  const text = await readFile(join(path, checkpointFiles.progress), "utf8").catch(() => "");
  const progress = progressSchema.safeParse(tryJson(text));
  if (!progress.success || progress.data.step !== step) {
    throw new FormatError(
      `${join(path, checkpointFiles.progress)} does not describe step ${step}; remove the folder to resume from the checkpoint before it.`,
    );
  }
  return { ...progress.data, path, readState: () => readState(join(path, checkpointFiles.state)) };
}

async function readState(path: string): Promise<Record<string, NdArray>> {
  return closing(await openSafetensorsFile(path), async ({ entries }) => {
    const state: Record<string, NdArray> = {};
    for (const [name, entry] of entries) state[name] = await readTensor(entry);
    return state;
  });
}

/** The steps of all complete checkpoints, in ascending order. */
export async function checkpointSteps(folder: string): Promise<number[]> {
  return (await namesIn(folder))
    .map((name) => /^step-(\d{8,})$/.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .toSorted((a, b) => a - b);
}

function namesIn(folder: string): Promise<string[]> {
  return ifThere(`read ${folder}`, readdir(folder), [], UsageError);
}

function nameOf(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}
