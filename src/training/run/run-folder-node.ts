/**
 * The folder of a training: its config, its checkpoints and the model that draws. Another training never gets into it by
 * mistake.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import { castArray, type NdArray } from "../../engine/arrays/ndarray.ts";
import { type Card, modelFiles } from "../../models/card.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { flattened } from "../config/flattened.ts";
import { type Checkpoint, checkpointSteps, readLastCheckpoint } from "./checkpoint-node.ts";

export interface RunFolder {
  readonly path: string;
  readonly checkpoints: string;
  readonly samples: string;
  /** Where an interrupted training goes on. */
  readonly from: Checkpoint | undefined;
  /** Makes the folder, where it is a new training's: called when all else is known to be right. */
  begin(): Promise<void>;
}

/** The config as it was read, with its defaults. */
const configFile = "config.json";

/** What may change when a training goes on: how long it takes and what it tells, not what it computes. */
const free = ["name", "latents.cache", "training.threads"].concat(
  ["steps", "minutes", "compute"].map((field) => `training.${field}`),
);
const freeParts = ["checkpoint.", "samples.", "log.", "validation.", "sampling."];

/**
 * Opens the folder of a new training, or of one that goes on.
 *
 * @throws UsageError when a new training would get into another's folder, there is nothing to go on from, or the config is
 * another than it began with, in which case the fields are named
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
        `${path} holds a training of ${steps.at(-1)} steps without its ${configFile}, so that nothing can go on with it; choose another folder with --out.`,
      );
    }
    if (resume) {
      throw new UsageError(
        `There is no training in ${path} to resume; leave out --resume to begin one, or name its folder with --out.`,
      );
    }
  } else if (steps.length === 0) {
    // It ended before anything was worth keeping: there is nothing to go on with, and nothing to lose.
  } else if (resume) {
    const changed = differences(before, JSON.parse(JSON.stringify(config)));
    if (changed.length > 0) {
      throw new UsageError(
        `The training in ${path} began with another config (${changed.join("; ")}); resume it with the same, or begin another in a new folder with training.from: ${path}.`,
      );
    }
  } else {
    throw new UsageError(
      `${path} holds a training of ${steps.at(-1)} steps; go on with it by --resume, or choose another folder with --out.`,
    );
  }
  const from = resume ? await readLastCheckpoint(checkpoints) : undefined;
  return {
    path,
    checkpoints,
    samples: join(path, "samples"),
    from,
    begin: async () => (steps.length === 0 ? begin(path, config) : undefined),
  };
}

async function begin(path: string, config: object): Promise<void> {
  await mkdir(join(path, "samples"), { recursive: true }).catch((error: unknown) => {
    throw new UsageError(
      `The output folder ${path} cannot be made: ${describeSystemError(error)}; choose another with --out.`,
      { cause: error },
    );
  });
  await writeFileAtomic(join(path, configFile), json(config));
}

async function readConfig(path: string): Promise<unknown> {
  const file = join(path, configFile);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new PatchwiseError(`Cannot read ${file}: ${describeSystemError(error)}.`, {
      cause: error,
    });
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new FormatError(`${file} is not JSON; it must be as patchwise train wrote it.`);
  }
}

/** Fields that differ, each with both values. */
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

/** Writes the model that draws, whole file by whole file. */
export async function writeModel(
  path: string,
  card: Card,
  weights: Readonly<Record<string, NdArray>>,
  dtype: "float32" | "float16",
): Promise<void> {
  const stored = Object.entries(weights).map(
    ([name, array]) => [name, castArray(array, dtype)] as const,
  );
  await writeSafetensors(join(path, modelFiles.weights), stored, [["format", "pt"]]);
  await writeFileAtomic(join(path, modelFiles.card), json(card));
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
