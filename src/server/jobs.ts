/** The types of the table of jobs: its options, its rows and its methods. */
import type { turns } from "../engine/turns.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { JobEvents, JobLog } from "./job-log.ts";
import type { DrawRecord, JobRecord, JobStore, TrainRecord } from "./job-store.ts";
import { isOver } from "./job-view.ts";
import { Problem } from "./problem.ts";
import type { AnyJob, JobState } from "./wire.ts";

/** A request that was checked, with its files by their names. */
export type Draft = (
  | Pick<
      DrawRecord,
      "kind" | "model" | "loras" | "settings" | "outputFormat" | "previews" | "attached" | "given"
    >
  | Pick<TrainRecord, "kind" | "name" | "config" | "pictures">
) & { readonly files: Readonly<Record<string, Uint8Array>> };

/** The files of a model with its LoRAs. */
export interface Located {
  readonly source: string;
  readonly loras: readonly ChosenLora[];
}

export interface JobTableOptions {
  readonly store: JobStore;
  /** Jobs that wait or run. */
  readonly queue: number;
  /** Processes that draw at the same time. */
  readonly processes: number;
  /** Pictures that a process draws at the same time. */
  readonly batch: number;
  /** Bytes that each process may take. */
  readonly memory: number | undefined;
  readonly version: string;
  /** The model's source and its LoRAs' files. @throws Problem if there are none of these names any more */
  readonly locate: (job: Pick<DrawRecord, "model" | "loras">) => Promise<Located>;
  /** Lets requests name the model of a training. */
  readonly publish: (name: string, folder: string) => Promise<void>;
  readonly withdraw: (name: string) => Promise<void>;
  /** Returns true if a model has a name. */
  readonly knows: (name: string) => boolean;
  /** Called with sentences for the operator. */
  readonly log: (text: string) => void;
}

/** A job in the table. */
export interface Entry<R extends JobRecord = JobRecord> {
  readonly record: R;
  readonly log: JobEvents;
  readonly step: number;
  readonly steps: number;
}

export interface Counts {
  readonly ended: Readonly<Record<Exclude<JobState, "queued" | "running" | "paused">, number>>;
  /** Seconds between start and end of succeeded jobs, added up. */
  readonly seconds: number;
  readonly steps: number;
  readonly crashes: number;
}

/**
 * The jobs that requests ask for. They are in this process and its folder, or in a queue that several servers share; an entry is the
 * job as it is when it is asked for.
 */
export interface JobTable {
  /** Accepts a job; it is kept when this returns. @throws Problem if the queue is full or the server is ending */
  submit(draft: Draft): Promise<Entry>;
  /** @throws Problem if there is no such job */
  get(id: string): Promise<Entry>;
  /** @throws Problem if there is no such job, or it is of the other kind */
  drawing(id: string): Promise<Entry<DrawRecord>>;
  training(id: string): Promise<Entry<TrainRecord>>;
  /** The newest first. */
  list(most: number): Promise<readonly Entry[]>;
  asJob(entry: Entry): AnyJob;
  /** Ends a job that is not over; a training that is over is removed with its model. @throws Problem if a drawing is over */
  cancel(id: string): Promise<Entry>;
  /** Waits for the end of a job. A signal that aborts cancels it. */
  ended(id: string, signal: AbortSignal): Promise<Entry>;
  /** Stops a training until it is resumed. @throws Problem if it neither waits nor runs */
  pause(id: string): Promise<Entry>;
  /** Goes on with a training. @throws Problem if it is not paused */
  resume(id: string): Promise<Entry>;
  /** Draws samples of a training after its current step. @throws Problem if it does not run */
  sample(id: string): Promise<Entry>;
  /** The bytes of a file of a job, by its name in the job's folder. */
  read(entry: Entry, file: string): Promise<Uint8Array<ArrayBuffer>>;
  /** How many jobs wait and are drawn. */
  lengths(): Readonly<Record<"queued" | "running", number>>;
  /** Processes of this server that draw. */
  readonly processes: number;
  readonly counts: Counts;
  /** Why no requests should be sent here now, in a sentence; undefined if they may. */
  notReady(): string | undefined;
  /** Takes no more jobs, waits for those that run for a time in milliseconds, and ends all processes. Jobs that wait stay on disk. */
  close(graceMs: number): Promise<void>;
}

/** A job with the fields that only the table needs. */
export interface Row extends Entry {
  record: JobRecord;
  readonly log: JobLog;
  step: number;
  steps: number;
  /** The model with its LoRAs, which a process holds. */
  readonly key: string;
  /** Undefined for trainings, and jobs that are over. */
  readonly located: Located | undefined;
  readonly persist: ReturnType<typeof turns>;
  cancelling: boolean;
  pausing: boolean;
}

/** Returns true if a row is of a kind, as its record says. */
export const draws = (row: Row): row is Row & Entry<DrawRecord> => row.record.kind === "draw";
export const trains = (row: Row): row is Row & Entry<TrainRecord> => row.record.kind === "train";

/** @throws Problem if the job is a training */
export function asDrawing<E extends Entry>(entry: E): E & Entry<DrawRecord> {
  if (entry.record.kind === "draw") return entry as E & Entry<DrawRecord>;
  throw new Problem(
    409,
    "The job is a training, which has samples and files in place of pictures.",
    { code: "wrong_kind" },
  );
}

/** The answer to those who ask a drawing for what only trainings have. */
export function noTraining(): Problem {
  return new Problem(409, "The job is a drawing; only trainings have this.", {
    code: "wrong_kind",
  });
}

/** Why a drawing failed that ended two processes. */
export function crashedTwice(how: string): string {
  return `The process that drew it ended by itself (${how}), also when nothing else was drawn; try a smaller picture or another model.`;
}

/** The answer where as many jobs wait or are drawn as may. */
export function queueFull(queue: number, takes: string, seconds: number): Problem {
  return new Problem(
    429,
    `${queue} jobs are waiting or being drawn, which is as many as ${takes}; try again later.`,
    { code: "queue_full", retryAfter: seconds },
  );
}

/** The answer to those who ask for a job that is not there. */
export function noJob(id: string): Problem {
  return new Problem(404, `There is no job ${JSON.stringify(id)}.`, { code: "job_not_found" });
}

/** Waits for the end of a job. A signal that aborts calls `giveUp`, which must end the job too. */
export async function untilOver(
  { log }: Entry,
  signal: AbortSignal,
  giveUp: () => void,
): Promise<void> {
  signal.addEventListener("abort", giveUp);
  if (signal.aborted) giveUp();
  try {
    for await (const { event } of log.follow(0, new AbortController().signal)) {
      if (event.kind === "job" && isOver(event.job)) break;
    }
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** Fields of a record that change. */
export type Changes = Partial<DrawRecord> | Partial<TrainRecord>;
