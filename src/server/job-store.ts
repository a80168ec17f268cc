/**
 * Jobs on disk, a folder each: `job.json`, the pictures that the job starts from, and what it made. Every change replaces
 * `job.json` as a whole, synced, so that a server that is killed finds each job as it last was. No database is needed for a few
 * thousand jobs, none of those for Node comes without a native build or loses nothing at a kill, and a folder can be looked into.
 */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { FormatError } from "../engine/errors.ts";
import type { GenerateSettings } from "../pipelines/settings.ts";
import type { TrainingConfig } from "../training/config/config.ts";
import { writeFileAtomic, writeJson } from "../weights/sources/atomic-node.ts";
import { exists, readJson } from "../weights/sources/folder-node.ts";
import { lockFolder } from "../weights/sources/lock-node.ts";
import {
  createFolder,
  describeSystemError,
  makeFolders,
} from "../weights/sources/system-error-node.ts";
import { Problem } from "./problem.ts";
import { jobStates, outputFormats } from "./wire.ts";

const pictureSchema = z.strictObject({
  /** Name in the job's folder. */
  file: z.string().regex(/^\d+\.[a-z]+$/),
  seed: z.int(),
  width: z.int(),
  height: z.int(),
});

/** The pictures and clips that a drawing may start from; each is a file of this name in the job's folder. */
export const givenNames = ["image", "mask", "lastImage", "extend"] as const;
export type GivenName = (typeof givenNames)[number];

/** The name of the file of a reference picture, by its index from 0; `settings.referred` of the record says how many there are. */
export const referenceFile = (index: number): string => `reference${index}`;

const anObject = (value: unknown) => typeof value === "object" && value !== null;

const commonFields = {
  id: z.uuid(),
  state: z.enum(jobStates),
  created: z.number(),
  started: z.number().optional(),
  ended: z.number().optional(),
  error: z.string().optional(),
  /** How often a process that worked on it ended by itself. */
  crashes: z.int(),
  /** How often the server ended while it was at work. */
  restarts: z.int(),
};

/** The record of a drawing. */
export const drawSchema = z.strictObject({
  kind: z.literal("draw"),
  ...commonFields,
  model: z.string(),
  loras: z.array(z.strictObject({ name: z.string(), weight: z.number().optional() })).readonly(),
  settings: z.custom<GenerateSettings>(anObject),
  outputFormat: z.enum(outputFormats),
  previews: z.int(),
  /** True if it is for a connection that waits for it, and is given up with it. */
  attached: z.boolean(),
  given: z.array(z.enum(givenNames)).readonly(),
  pictures: z.array(pictureSchema).readonly(),
});

const trainSchema = z.strictObject({
  kind: z.literal("train"),
  ...commonFields,
  /** The name under which its model is drawn with afterwards. */
  name: z.string(),
  /** Its data are the pictures in the job's folder. */
  config: z.custom<TrainingConfig>(anObject),
  /** Number of pictures that it trains on. */
  pictures: z.int(),
  /** Pictures that were drawn on the way: how many after which step, and their prompts. */
  samples: z
    .array(z.strictObject({ step: z.int(), count: z.int(), of: z.array(z.string()).readonly() }))
    .readonly(),
  /** Files of the model, once there is one. */
  files: z.array(z.string().regex(/^[\w-]+\.[a-z]+$/)).readonly(),
});

const recordSchema = z.discriminatedUnion("kind", [drawSchema, trainSchema]);

export type DrawRecord = Readonly<z.output<typeof drawSchema>>;
export type TrainRecord = Readonly<z.output<typeof trainSchema>>;
/** A job as it is kept. */
export type JobRecord = DrawRecord | TrainRecord;
export type StoredPicture = z.output<typeof pictureSchema>;

/** Folders of a training in that of its job. */
export const trainingFolders = { data: "data", model: "model", samples: "samples" } as const;

/** The name of a sample's file. */
export function sampleFile(step: number, index: number): string {
  return `${step}-${index}.png`;
}

export interface JobStore {
  /** All jobs that were accepted, the oldest first. Folders of jobs that never were are removed. */
  load(): Promise<JobRecord[]>;
  /**
   * Keeps a new job with its files by their names; it is accepted once this is done.
   *
   * @throws Problem if it cannot be written, of which then nothing is left
   */
  add(record: JobRecord, files: Readonly<Record<string, Uint8Array>>): Promise<void>;
  save(record: JobRecord): Promise<void>;
  remove(id: string): Promise<void>;
  /** @throws Problem if the file of a job cannot be read */
  read(id: string, file: string): Promise<Uint8Array<ArrayBuffer>>;
  /** The folder of a job. */
  folder(id: string): string;
  /** Lets another server have the folder. */
  close(): Promise<void>;
}

const recordFile = "job.json";

/**
 * @param output the folder that holds the folder of each job; it is made if it is missing
 * @throws UsageError if another server is at work in it
 */
export async function openJobStore(output: string): Promise<JobStore> {
  await createFolder(output);
  const lock = await lockFolder(output, "--output");
  const folder = (id: string) => join(output, id);
  const save = (record: JobRecord) => writeJson(join(folder(record.id), recordFile), record);
  const remove = (id: string) => rm(folder(id), { recursive: true, force: true });
  return {
    folder,
    save,
    remove,
    close: async () => lock.close?.(),
    async read(id, file) {
      const bytes = await readFile(join(folder(id), file)).catch((cause: unknown) => {
        throw new Problem(
          404,
          `The file cannot be read from the server's folder: ${describeSystemError(cause)}.`,
          { code: "file_not_found", cause },
        );
      });
      return new Uint8Array(bytes);
    },
    async load() {
      const records: JobRecord[] = [];
      for (const name of await readdir(output)) {
        // Anything else in the folder is not the server's.
        if (!z.uuid().safeParse(name).success) continue;
        if (await exists(join(folder(name), recordFile))) records.push(await readRecord(name));
        else await remove(name);
      }
      return records.toSorted((a, b) => a.created - b.created);
    },
    async add(record, files) {
      const path = folder(record.id);
      try {
        await mkdir(path);
        for (const [name, bytes] of Object.entries(files)) {
          await makeFolders(dirname(join(path, name)));
          await writeFileAtomic(join(path, name), bytes);
        }
        await save(record);
      } catch (error) {
        // What was written of it takes room that the disk may lack.
        await remove(record.id).catch(() => undefined);
        const { cause = error } = error as Error;
        throw new Problem(
          503,
          `The server cannot keep the job in its folder: ${describeSystemError(cause)}.`,
          { code: "not_kept", retryAfter: 60, cause: error },
        );
      }
    },
  };

  async function readRecord(name: string): Promise<JobRecord> {
    const path = join(folder(name), recordFile);
    const result = recordSchema.safeParse(await readJson(path));
    if (result.success && result.data.id === name) return result.data;
    throw new FormatError(
      `${path} is not the record of a job, as this version writes it; remove its folder, or give another --output.`,
    );
  }
}
