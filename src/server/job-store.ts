/**
 * Jobs on disk, a folder each: `job.json`, the pictures that the job starts from, and those that it drew. Every change replaces
 * `job.json` as a whole, synced, so that a server that is killed finds each job as it last was. No database is needed for a few
 * thousand jobs, none of those for Node comes without a native build or loses nothing at a kill, and a folder can be looked into.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { FormatError } from "../engine/errors.ts";
import type { GenerateSettings } from "../pipelines/settings.ts";
import { writeFileAtomic, writeJson } from "../weights/sources/atomic-node.ts";
import { exists, readJson } from "../weights/sources/folder-node.ts";
import { lockFolder } from "../weights/sources/lock-node.ts";
import { jobStates, outputFormats } from "./wire.ts";

const pictureSchema = z.strictObject({
  /** Name in the job's folder. */
  file: z.string().regex(/^\d+\.[a-z]+$/),
  seed: z.int(),
  width: z.int(),
  height: z.int(),
});

const recordSchema = z.strictObject({
  id: z.uuid(),
  state: z.enum(jobStates),
  model: z.string(),
  loras: z.array(z.strictObject({ name: z.string(), weight: z.number().optional() })).readonly(),
  settings: z.custom<GenerateSettings>((value) => typeof value === "object" && value !== null),
  outputFormat: z.enum(outputFormats),
  previews: z.int(),
  /** Whether it is for a connection that waits for it, and is given up with it. */
  attached: z.boolean(),
  hasImage: z.boolean(),
  hasMask: z.boolean(),
  created: z.number(),
  started: z.number().optional(),
  ended: z.number().optional(),
  error: z.string().optional(),
  pictures: z.array(pictureSchema).readonly(),
  /** How often a process that drew it ended by itself. */
  crashes: z.int(),
  /** How often the server ended while it was drawn. */
  restarts: z.int(),
});

/** A job as it is kept. */
export type JobRecord = Readonly<z.output<typeof recordSchema>>;
export type StoredPicture = z.output<typeof pictureSchema>;

/** Picture files to start from, as the request gave them. */
export interface GivenFiles {
  readonly image?: Uint8Array | undefined;
  readonly mask?: Uint8Array | undefined;
}

export interface JobStore {
  /** All jobs that were accepted, the oldest first. Folders of jobs that never were are removed. */
  load(): Promise<JobRecord[]>;
  /** Keeps a new job; it is accepted once this is done. */
  add(record: JobRecord, files: GivenFiles): Promise<void>;
  save(record: JobRecord): Promise<void>;
  remove(id: string): Promise<void>;
  /** The folder of a job. */
  folder(id: string): string;
  /** Lets another server have the folder. */
  close(): Promise<void>;
}

const recordFile = "job.json";
export const imageFile = "image";
export const maskFile = "mask";

/**
 * @param output the folder that holds the folder of each job; it is made if it is missing
 * @throws UsageError if another server is at work in it
 */
export async function openJobStore(output: string): Promise<JobStore> {
  await mkdir(output, { recursive: true });
  const lock = await lockFolder(output, "--output");
  const folder = (id: string) => join(output, id);
  const save = (record: JobRecord) => writeJson(join(folder(record.id), recordFile), record);
  const remove = (id: string) => rm(folder(id), { recursive: true, force: true });
  return {
    folder,
    save,
    remove,
    close: async () => lock.close?.(),
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
    async add(record, { image, mask }) {
      const path = folder(record.id);
      await mkdir(path);
      if (image) await writeFileAtomic(join(path, imageFile), image);
      if (mask) await writeFileAtomic(join(path, maskFile), mask);
      await save(record);
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
