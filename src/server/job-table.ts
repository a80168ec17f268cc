/**
 * The table of jobs: takes them in, gives them to processes that draw, and says what becomes of them. Each accepted job ends as
 * succeeded, failed or cancelled, also if a process or the server itself is killed on the way.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { turns } from "../engine/turns.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import { type DrawingEvent, type DrawingPool, drawingPool } from "./drawing-pool.ts";
import { nextJobs, placesOf } from "./dispatch.ts";
import { type JobLog, jobLog } from "./job-log.ts";
import {
  type GivenFiles,
  imageFile,
  type JobRecord,
  type JobStore,
  maskFile,
} from "./job-store.ts";
import { Problem } from "./problem.ts";
import type { Job, JobState } from "./wire.ts";

/** A request that was checked. */
export interface Draft extends Pick<
  JobRecord,
  "model" | "loras" | "settings" | "outputFormat" | "previews" | "attached"
> {
  readonly files: GivenFiles;
}

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
  readonly locate: (job: Pick<JobRecord, "model" | "loras">) => Promise<Located>;
  /** Is told of what the operator should know. */
  readonly log: (text: string) => void;
}

/** A job in the table. */
export interface Entry {
  readonly record: JobRecord;
  readonly log: JobLog;
  readonly step: number;
  readonly steps: number;
}

export interface Counts {
  readonly ended: Readonly<Record<Exclude<JobState, "queued" | "running">, number>>;
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
  /** The newest first. */
  list(): readonly Entry[];
  asJob(entry: Entry): Job;
  /** Ends a job that waits or runs. @throws Problem if it is over */
  cancel(id: string): Promise<Entry>;
  /** Waits for the end of a job. A signal that aborts cancels it. */
  ended(id: string, signal: AbortSignal): Promise<Entry>;
  /** A file of a job. */
  path(id: string, file: string): string;
  readonly pool: DrawingPool;
  readonly counts: Counts;
  /** Takes no more jobs, waits for those that run for a time in milliseconds, and ends all processes. Jobs that wait stay on disk. */
  close(graceMs: number): Promise<void>;
}

interface Row extends Entry {
  record: JobRecord;
  step: number;
  steps: number;
  readonly key: string;
  /** Undefined only for jobs that are over. */
  readonly located: Located | undefined;
  readonly persist: ReturnType<typeof turns>;
  cancelling: boolean;
}

/** A job that ended this many processes is at fault itself. After the first time, it is drawn alone. */
const MOST_CRASHES = 2;
/** A job may have been drawn when the server ended for any reason, so this is more. */
const MOST_RESTARTS = 10;
/** Jobs that are over and kept. */
const KEPT = 1000;

export const isOver = ({ state }: Pick<JobRecord, "state">): boolean =>
  state !== "queued" && state !== "running";

/** Opens the table with the jobs of the store, and draws what is left of them. */
export async function openJobTable(options: JobTableOptions): Promise<JobTable> {
  const table = new Table(options);
  await table.open();
  return table;
}

class Table implements JobTable {
  readonly pool: DrawingPool;
  readonly counts = {
    ended: { succeeded: 0, failed: 0, cancelled: 0 },
    seconds: 0,
    steps: 0,
    crashes: 0,
  };
  readonly #options: JobTableOptions;
  readonly #rows = new Map<string, Row>();
  /** Whether jobs may be drawn. */
  #isOpen = false;
  /** Jobs that are being written down. */
  #arriving = 0;

  constructor(options: JobTableOptions) {
    this.#options = options;
    this.pool = drawingPool(options.processes, {
      onEvent: (event) => void this.#heard(event),
      onRefused: (ids, { failure }) => {
        for (const id of ids) void this.#fail(this.#rows.get(id)!, failure.message);
      },
      onCrash: (ids, how) => {
        this.counts.crashes++;
        options.log(`A process that draws ended by itself (${how}); its jobs are drawn again.`);
        for (const id of ids) void this.#again(this.#rows.get(id)!, how);
        this.#dispatch();
      },
    });
  }

  async open(): Promise<void> {
    for (const record of await this.#options.store.load()) await this.#restore(record);
    this.#isOpen = true;
    this.#dispatch();
  }

  async submit({ files, ...draft }: Draft): Promise<Entry> {
    if (!this.#isOpen) {
      throw new Problem(503, "The server is ending; try again later.", { retryAfter: 10 });
    }
    const { queue, locate, store } = this.#options;
    if (this.#unfinished().length + this.#arriving >= queue) {
      throw new Problem(
        429,
        `${queue} jobs are waiting or being drawn, which is as many as this server takes; try again later.`,
        { code: "queue_full", retryAfter: retryAfter(this.#unfinished(), this.counts) },
      );
    }
    const record: JobRecord = {
      ...draft,
      id: randomUUID(),
      state: "queued",
      hasImage: files.image !== undefined,
      hasMask: files.mask !== undefined,
      created: Date.now(),
      pictures: [],
      crashes: 0,
      restarts: 0,
    };
    this.#arriving++;
    try {
      const located = await locate(record);
      await store.add(record, files);
      const row = this.#add(record, located);
      this.#dispatch();
      return row;
    } finally {
      this.#arriving--;
    }
  }

  get(id: string): Row {
    const row = this.#rows.get(id);
    if (row) return row;
    throw new Problem(404, `There is no job ${JSON.stringify(id)}.`, { code: "job_not_found" });
  }

  list(): readonly Entry[] {
    return [...this.#rows.values()].toReversed();
  }

  asJob(entry: Entry): Job {
    return jobOf(entry, this.#unfinished());
  }

  async cancel(id: string): Promise<Entry> {
    const row = this.get(id);
    if (isOver(row.record)) {
      throw new Problem(409, `The job is over: it is ${row.record.state}.`, { code: "job_over" });
    }
    row.cancelling = true;
    if (row.record.state === "queued") await this.#finish(row, "cancelled", {});
    // The state stays "running" until the process has stopped, before its next step.
    else this.pool.cancel(row.key, id);
    return row;
  }

  async ended(id: string, signal: AbortSignal): Promise<Entry> {
    const row = this.get(id);
    const giveUp = () => void this.cancel(id).catch(() => undefined);
    signal.addEventListener("abort", giveUp);
    if (signal.aborted) giveUp();
    try {
      for await (const { event } of row.log.follow(0, new AbortController().signal)) {
        if (event.kind === "job" && isOver(event.job)) break;
      }
      return row;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  path(id: string, file: string): string {
    return join(this.#options.store.folder(id), file);
  }

  async close(graceMs: number): Promise<void> {
    this.#isOpen = false;
    const ended = "The server ended before it was drawn; send it again.";
    for (const row of this.#unfinished()) {
      if (row.record.state === "queued" && row.record.attached) await this.#fail(row, ended);
    }
    const until = Date.now() + graceMs;
    const running = () => this.#unfinished().filter(({ record }) => record.state === "running");
    while (running().length > 0 && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await this.pool.close();
    for (const row of running()) {
      if (row.record.attached) await this.#fail(row, ended);
      // It is drawn anew at the next start.
      else await this.#change(row, { state: "queued", started: undefined });
    }
    await Promise.all([...this.#rows.values()].map(({ persist }) => persist(async () => {})));
  }

  #unfinished(): Row[] {
    return [...this.#rows.values()].filter(({ record }) => !isOver(record));
  }

  #add(record: JobRecord, located?: Located): Row {
    const row: Row = {
      record,
      located,
      log: jobLog(),
      step: record.state === "succeeded" ? record.settings.steps : 0,
      steps: record.settings.steps,
      key: JSON.stringify([record.model, record.loras]),
      persist: turns(),
      cancelling: false,
    };
    this.#rows.set(record.id, row);
    this.#announce(row);
    if (isOver(record)) row.log.end();
    return row;
  }

  /** What a restart makes of a job. */
  async #restore(record: JobRecord): Promise<void> {
    if (isOver(record)) {
      this.#add(record);
      return;
    }
    let located: Located | undefined;
    let refusal: string | undefined;
    try {
      located = await this.#options.locate(record);
    } catch (error) {
      refusal = (error as Error).message;
    }
    const restarts = record.restarts + (record.state === "running" ? 1 : 0);
    if (record.attached) {
      refusal = "The server ended, and with it the connection that waited for it.";
    } else if (restarts >= MOST_RESTARTS) {
      refusal = `The server ended ${restarts} times while it was drawn.`;
    }
    const row = this.#add({ ...record, restarts, state: "queued", started: undefined }, located);
    if (refusal !== undefined) await this.#fail(row, refusal);
    else if (restarts !== record.restarts) await this.#change(row, {});
  }

  /** Gives waiting jobs to processes, as far as these have room. */
  #dispatch(): void {
    for (;;) {
      if (!this.#isOpen) return;
      const waiting = this.#unfinished().filter(({ record }) => record.state === "queued");
      const next = nextJobs(waiting, this.pool, this.#options.batch);
      if (next.length === 0) return;
      for (const row of next) this.#begin(row);
    }
  }

  #begin(row: Row): void {
    const { id, settings, outputFormat, previews, model, hasImage, hasMask } = row.record;
    const { store, memory, version } = this.#options;
    const folder = store.folder(id);
    this.pool.draw(
      row.key,
      { kind: "open", ...row.located!, memory },
      {
        kind: "draw",
        id,
        settings,
        folder,
        image: hasImage ? join(folder, imageFile) : undefined,
        mask: hasMask ? join(folder, maskFile) : undefined,
        outputFormat,
        previews,
        model,
        version,
      },
      placesOf(row),
    );
    void this.#change(row, { state: "running", started: Date.now() });
    this.#announce(row);
  }

  async #heard(event: DrawingEvent): Promise<void> {
    const row = this.#rows.get(event.id);
    if (!row || isOver(row.record)) return;
    switch (event.kind) {
      case "progress":
        this.counts.steps++;
        row.step = event.step;
        row.steps = event.steps;
        row.log.add({ kind: "progress", step: event.step, steps: event.steps });
        return;
      case "preview": {
        const pictures = event.pictures.map((bytes) => Buffer.from(bytes).toString("base64"));
        row.log.add({ kind: "preview", step: event.step, steps: event.steps, pictures });
        return;
      }
      case "drawn":
        return this.#finish(row, "succeeded", { pictures: event.pictures });
      case "cancelled":
        return this.#finish(row, "cancelled", {});
      case "failed":
        return this.#fail(row, event.failure.message);
    }
  }

  /** A job whose process ended by itself. */
  async #again(row: Row, how: string): Promise<void> {
    if (row.cancelling) return this.#finish(row, "cancelled", {});
    const crashes = row.record.crashes + 1;
    if (crashes >= MOST_CRASHES) {
      await this.#change(row, { crashes });
      return this.#fail(
        row,
        `The process that drew it ended by itself (${how}), also when nothing else was drawn; try a smaller picture or another model.`,
      );
    }
    row.step = 0;
    await this.#change(row, { state: "queued", started: undefined, crashes });
    this.#announce(row);
    this.#dispatch();
  }

  #fail(row: Row, error: string): Promise<void> {
    return this.#finish(row, "failed", { error });
  }

  async #finish(row: Row, state: keyof Counts["ended"], more: Partial<JobRecord>): Promise<void> {
    if (isOver(row.record)) return;
    this.counts.ended[state]++;
    const ended = Date.now();
    if (state === "succeeded") this.counts.seconds += (ended - row.record.started!) / 1000;
    await this.#change(row, { state, ended, ...more });
    this.#announce(row);
    row.log.end();
    await this.#forgetOldest();
    this.#dispatch();
  }

  /** Changes a job, here and on disk. What cannot be written down still happens, and is reported. */
  #change(row: Row, changes: Partial<JobRecord>): Promise<void> {
    row.record = { ...row.record, ...changes };
    const { record } = row;
    return row
      .persist(() => this.#options.store.save(record))
      .catch((error: Error) => this.#options.log(`Job ${record.id}: ${error.message}`));
  }

  #announce(row: Row): void {
    row.log.add({ kind: "job", job: this.asJob(row) });
  }

  async #forgetOldest(): Promise<void> {
    const over = [...this.#rows.values()].filter(({ record }) => isOver(record));
    for (const { record } of over.slice(0, Math.max(0, over.length - KEPT))) {
      this.#rows.delete(record.id);
      await this.#options.store.remove(record.id);
    }
  }
}

function jobOf({ record, step, steps }: Entry, open: readonly Entry[]): Job {
  const { id, state, model, loras, settings, outputFormat, created, started, ended, error } =
    record;
  const before = open.filter(
    (each) => each.record.state === "queued" && each.record.created < created,
  ).length;
  return {
    id,
    state,
    model,
    loras,
    settings,
    outputFormat,
    created,
    started,
    ended,
    step,
    steps,
    ...(state === "queued" && { position: before }),
    error,
    pictures: record.pictures.map(({ seed, width, height }, i) => ({
      url: `/api/jobs/${id}/pictures/${i}`,
      seed,
      width,
      height,
    })),
  };
}

/** Seconds until a place is likely to be free: what jobs took on average, for one of them. */
function retryAfter(open: readonly Entry[], { ended, seconds }: Counts): number {
  const mean = ended.succeeded === 0 ? 5 : seconds / ended.succeeded;
  const running = open.filter(({ record }) => record.state === "running").length;
  return Math.min(300, Math.max(1, Math.ceil(mean / Math.max(1, running))));
}
