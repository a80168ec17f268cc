/**
 * Checkpoints of a training: folders `checkpoints/step-00001200` with the whole state and what it takes to go on bit for
 * bit. A folder gets its name when all in it is on the disk, so that one which can be seen is whole.
 */
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { readTensor } from "../../weights/safetensors/safetensors.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";

const progressSchema = z.strictObject({
  /** Steps done. */
  step: z.int().min(0),
  /** Seconds of training, pauses not counted. */
  seconds: z.number().min(0),
});

export type Progress = z.output<typeof progressSchema>;

export interface Checkpoint extends Progress {
  readonly path: string;
  /** Reads the whole state, which is large: nothing here keeps it. */
  readState(): Promise<Record<string, NdArray>>;
}

const files = { state: "state.safetensors", progress: "progress.json" } as const;
const unfinished = ".unfinished-";

/**
 * Writes a checkpoint, then removes all but the last `keep`.
 *
 * @throws PatchwiseError when the disk refuses; what was there before is whole
 */
export async function writeCheckpoint(
  folder: string,
  progress: Progress,
  state: Readonly<Record<string, NdArray>>,
  keep: number,
): Promise<void> {
  const path = join(folder, nameOf(progress.step));
  const temporary = join(folder, `${unfinished}${nameOf(progress.step)}`);
  // Those of other steps too, where a training was killed.
  for (const name of await namesIn(folder)) {
    if (name.startsWith(unfinished)) await rm(join(folder, name), { recursive: true, force: true });
  }
  try {
    await system(`Cannot make ${temporary}`, mkdir(temporary, { recursive: true }));
    await writeSafetensors(join(temporary, files.state), Object.entries(state));
    await writeFileAtomic(
      join(temporary, files.progress),
      new TextEncoder().encode(`${JSON.stringify(progress)}\n`),
    );
    // A training that went back to an older checkpoint comes by here again.
    await rm(path, { recursive: true, force: true });
    await system(`Cannot name ${path}`, rename(temporary, path));
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
 * The last checkpoint, or undefined where there is none.
 *
 * @throws FormatError when it is not what was written
 */
export async function readLastCheckpoint(folder: string): Promise<Checkpoint | undefined> {
  const step = (await checkpointSteps(folder)).at(-1);
  if (step === undefined) return undefined;
  const path = join(folder, nameOf(step));
  const progress = progressSchema.safeParse(await readJson(join(path, files.progress)));
  if (!progress.success || progress.data.step !== step) {
    throw new FormatError(
      `${join(path, files.progress)} does not tell the progress of step ${step}; remove the folder to go on from the checkpoint before.`,
    );
  }
  return { ...progress.data, path, readState: () => readState(join(path, files.state)) };
}

async function readState(path: string): Promise<Record<string, NdArray>> {
  const weights = await openSafetensorsFile(path);
  try {
    const state: Record<string, NdArray> = {};
    for (const [name, entry] of weights.entries) state[name] = await readTensor(entry);
    return state;
  } finally {
    await weights.close();
  }
}

/** Steps of all whole checkpoints, rising. */
export async function checkpointSteps(folder: string): Promise<number[]> {
  return (await namesIn(folder))
    .map((name) => /^step-(\d{8,})$/.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .toSorted((a, b) => a - b);
}

function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new UsageError(`Cannot read ${folder}: ${describeSystemError(error)}.`, { cause: error });
  });
}

function nameOf(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch {
    return undefined;
  }
}

function system<T>(what: string, promise: Promise<T>): Promise<T> {
  return promise.catch((error: unknown) => {
    throw new PatchwiseError(`${what}: ${describeSystemError(error)}.`, { cause: error });
  });
}
