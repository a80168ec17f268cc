/**
 * The jobs of all servers of a queue: a record for each by its id, which is changed only from the revision that is known, so that of two
 * servers that would change it at the same time one does; and the files of jobs.
 */
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { KV, KvEntry } from "@nats-io/kv";
import type { ObjectStore } from "@nats-io/obj";
import * as z from "zod";
import { tryJson } from "../../engine/bytes.ts";
import { FormatError } from "../../engine/errors.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { isOutdated } from "../../queue/link-node.ts";
import { type DrawRecord, drawSchema, referenceFile } from "../job-store.ts";
import { fileBucket, jobBucket } from "./names.ts";

const sharedSchema = z.strictObject({
  record: drawSchema,
  /** What the pictures of its model depend on, at the server that accepted it. */
  digest: z.string(),
  /** How often a server has begun to draw it. */
  attempt: z.int(),
  /** The server that draws it, or did last. */
  replica: z.string().optional(),
  /** True if the server that draws it is to stop. */
  cancelling: z.boolean(),
  /** Of the change that wrote this, by which it is known if its answer was lost. */
  change: z.string(),
});

/** A job as the servers share it. */
export interface SharedJob {
  readonly record: DrawRecord;
  /** What the pictures of its model depend on, at the server that accepted it. */
  readonly digest: string;
  readonly attempt: number;
  readonly replica?: string | undefined;
  readonly cancelling: boolean;
}

/** A job as it was read, or written, at a revision of its record. */
export interface KeptJob extends SharedJob {
  readonly revision: number;
}

/** `attempt` or `persist` of a queue: what is done while the server is away. */
export type Call = <T>(call: () => Promise<T>) => Promise<T>;

export interface SharedStore {
  /** Jobs as they last were, with the delay of a message. */
  readonly known: ReadonlyMap<string, KeptJob>;
  create(record: DrawRecord, digest: string, call: Call): Promise<KeptJob>;
  get(id: string, call: Call): Promise<KeptJob | undefined>;
  /** Changes a job; undefined if somebody else has changed it since. */
  change(kept: KeptJob, changes: Partial<SharedJob>, call: Call): Promise<KeptJob | undefined>;
  addFile(name: string, bytes: Uint8Array, call: Call): Promise<void>;
  file(name: string, call: Call): Promise<Uint8Array | undefined>;
  /** Removes files, if they are there. */
  removeFiles(names: readonly string[], call: Call): Promise<void>;
  /** Removes a job with the files of its last attempt. */
  remove(job: SharedJob, call: Call): Promise<void>;
  close(): void;
}

/** The name of a picture or clip that a job starts from, by its name in the job's folder. */
export function givenFile(id: string, name: string): string {
  return `${id}/given/${name}`;
}

/** The files in a job's folder that it starts from. */
export function startFiles({ given, settings }: DrawRecord): readonly string[] {
  return [...given, ...Array.from({ length: settings.referred ?? 0 }, (_, i) => referenceFile(i))];
}

/** The name of a picture that an attempt at a job has drawn. */
export function drawnFile(id: string, attempt: number, file: string): string {
  return `${id}/${attempt}/${file}`;
}

/** The name of the pictures of a job's last preview, if they are too large for a message. */
export function previewFile(id: string): string {
  return `${id}/preview`;
}

/** @param onChange called with each job that was changed, by this server or another */
export async function openSharedStore(
  queue: Queue,
  onChange: (job: KeptJob) => void,
  log: (text: string) => void,
): Promise<SharedStore> {
  const values = await queue.keyValue(jobBucket, { history: 1 });
  const files = await queue.objects(fileBucket);
  const known = new Map<string, KeptJob>();
  const closing = new AbortController();
  const changed = (entry: KvEntry) => {
    if (entry.operation !== "PUT") return void known.delete(entry.key);
    try {
      const job = jobOf(entry);
      known.set(entry.key, job);
      onChange(job);
    } catch (error) {
      log((error as Error).message);
    }
  };
  void watch(values, changed, closing.signal);
  return { known, close: () => closing.abort(), ...recordsOf(values), ...filesOf(files, values) };
}

function recordsOf(values: KV): Pick<SharedStore, "create" | "get" | "change"> {
  const get: SharedStore["get"] = (id, call) =>
    call(async () => {
      const entry = await values.get(id);
      return entry?.operation === "PUT" ? jobOf(entry) : undefined;
    });
  const written = async (
    job: SharedJob,
    call: Call,
    write: (value: string) => Promise<number>,
  ): Promise<KeptJob | undefined> => {
    const change = randomUUID();
    const value = JSON.stringify({ ...plain(job), change });
    return call(async () => {
      try {
        return { ...job, revision: await write(value) };
      } catch (error) {
        if (!isOutdated(error)) throw error;
      }
      // It may have been written by an earlier call whose answer was lost.
      const entry = await values.get(job.record.id);
      const isOurs =
        entry?.operation === "PUT" && entry.json<{ change?: string }>().change === change;
      return isOurs ? { ...job, revision: entry.revision } : undefined;
    });
  };
  return {
    get,
    async create(record, digest, call) {
      const job = { record, digest, attempt: 0, cancelling: false };
      return (await written(job, call, (value) => values.create(record.id, value)))!;
    },
    change: ({ revision, ...job }, changes, call) =>
      written({ ...job, ...changes }, call, (value) =>
        values.update(job.record.id, value, revision),
      ),
  };
}

function filesOf(
  files: ObjectStore,
  values: KV,
): Pick<SharedStore, "addFile" | "file" | "removeFiles" | "remove"> {
  const removeFiles: SharedStore["removeFiles"] = async (names, call) => {
    for (const name of names) {
      await call(async () => {
        const there = await files.info(name);
        if (there && !there.deleted) await files.delete(name);
      });
    }
  };
  return {
    addFile: (name, bytes, call) => call(async () => void (await files.putBlob({ name }, bytes))),
    file: (name, call) => call(async () => (await files.getBlob(name)) ?? undefined),
    removeFiles,
    async remove({ record, attempt }, call) {
      const { id, pictures } = record;
      await call(() => values.purge(id));
      await removeFiles(
        [
          previewFile(id),
          ...startFiles(record).map((name) => givenFile(id, name)),
          ...pictures.map(({ file }) => drawnFile(id, attempt, file)),
        ],
        call,
      );
    },
  };
}

/** Hears of all records and their changes until a signal comes. */
async function watch(
  values: KV,
  changed: (entry: KvEntry) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const entries = await values.watch();
      const stop = () => entries.stop();
      signal.addEventListener("abort", stop);
      for await (const entry of entries) changed(entry);
    } catch {
      // The server is away; what was missed is told again.
    }
    await setTimeout(500);
  }
}

function plain({ record, digest, attempt, replica, cancelling }: SharedJob): SharedJob {
  return { record, digest, attempt, replica, cancelling };
}

function jobOf(entry: KvEntry): KeptJob {
  const result = sharedSchema.safeParse(tryJson(entry.string()));
  if (result.success) return { ...plain(result.data), revision: entry.revision };
  throw new FormatError(
    `${entry.key} in ${jobBucket} is not the record of a job, as this version writes it; let all servers of a queue have one version.`,
  );
}
