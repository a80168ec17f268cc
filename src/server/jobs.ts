/** The types of the table of jobs: its options, its rows and its methods. */
import type { turns } from "../engine/turns.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { DrawingPool } from "./drawing-pool.ts";
import type { JobLog } from "./job-log.ts";
import type { DrawRecord, JobRecord, JobStore, TrainRecord } from "./job-store.ts";
import type { TrainingJobs, TrainingRow } from "./training-jobs.ts";
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
  readonly log: JobLog;
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

export interface JobTable {
  /** Accepts a job; it is on disk when this returns. @throws Problem if the queue is full or the server is ending */
  submit(draft: Draft): Promise<Entry>;
  /** @throws Problem if there is no such job */
  get(id: string): Entry;
  /** @throws Problem if there is no such job, or it is of the other kind */
  drawing(id: string): Entry<DrawRecord>;
  training(id: string): TrainingRow;
  /** The newest first. */
  list(): readonly Entry[];
  asJob(entry: Entry): AnyJob;
  /** Ends a job that is not over; a training that is over is removed with its model. @throws Problem if a drawing is over */
  cancel(id: string): Promise<Entry>;
  /** Waits for the end of a job. A signal that aborts cancels it. */
  ended(id: string, signal: AbortSignal): Promise<Entry>;
  /** A file of a job. */
  path(id: string, file: string): string;
  readonly pool: DrawingPool;
  readonly trainings: TrainingJobs;
  readonly counts: Counts;
  /** Takes no more jobs, waits for those that run for a time in milliseconds, and ends all processes. Jobs that wait stay on disk. */
  close(graceMs: number): Promise<void>;
}

/** A job with the fields that only the table needs. */
export interface Row extends Entry {
  record: JobRecord;
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

/** Fields of a record that change. */
export type Changes = Partial<DrawRecord> | Partial<TrainRecord>;
