/**
 * The table of jobs: takes them in, gives them to processes that draw or train, and says what becomes of them. Each accepted job ends
 * as succeeded, failed or cancelled, also if a process or the server itself is killed on the way.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { turns } from "../engine/turns.ts";
import { type DrawingEvent, type DrawingPool, drawingPool } from "./drawing-pool.ts";
import { nextJobs, placesOf } from "./dispatch.ts";
import { jobLog } from "./job-log.ts";
import type { DrawRecord, JobRecord } from "./job-store.ts";
import { isOver, jobView, retryAfter, stepsOf } from "./job-view.ts";
import {
  asDrawing,
  type Changes,
  crashedTwice,
  type Counts,
  type Draft,
  draws,
  type Entry,
  type JobTable,
  type JobTableOptions,
  type Located,
  noJob,
  noTraining,
  queueFull,
  type Row,
  trains,
  untilOver,
} from "./jobs.ts";
import { KEPT, MOST_CRASHES, MOST_RESTARTS } from "./limits.ts";
import { Problem } from "./problem.ts";
import { TrainingJobs, type TrainingRow } from "./training-jobs.ts";
import type { AnyJob } from "./wire.ts";

/** Opens the table with the jobs of the store, and draws what is left of them. */
export async function openJobTable(options: JobTableOptions): Promise<JobTable> {
  const table = new Table(options);
  await table.open();
  return table;
}

class Table implements JobTable {
  readonly #pool: DrawingPool;
  readonly #trainings: TrainingJobs;
  readonly counts = {
    ended: { succeeded: 0, failed: 0, cancelled: 0 },
    seconds: 0,
    steps: 0,
    crashes: 0,
  };
  readonly #options: JobTableOptions;
  readonly #rows = new Map<string, Row>();
  /** True if jobs may be drawn. */
  #isOpen = false;
  /** The jobs that wait or run; undefined once a state has changed. */
  #open: readonly Row[] | undefined;
  /** Jobs that are being written down. */
  #arriving = 0;

  constructor(options: JobTableOptions) {
    this.#options = options;
    this.#pool = drawingPool(options.processes, {
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
    this.#trainings = new TrainingJobs({
      options,
      rows: () => this.#rows.values(),
      row: (id) => this.#rows.get(id),
      add: (record) => this.#add(record),
      drop: async (id) => {
        this.#rows.delete(id);
        await options.store.remove(id);
      },
      change: (row, changes) => this.#change(row, changes),
      announce: (row) => this.#announce(row),
      finish: (row, state, more) => this.#finish(row, state, more),
      path: (id, file) => this.#path(id, file),
      dispatch: () => this.#dispatch(),
      crashed: (row, how) => {
        this.counts.crashes++;
        options.log(
          `The process that trains ended by itself (${how}); it goes on from its last checkpoint.`,
        );
        void this.#again(row, how);
      },
    });
  }

  async open(): Promise<void> {
    const records = await this.#options.store.load();
    // Drawings may be with models of trainings.
    for (const record of records) await this.#trainings.publish(record);
    for (const record of records) await this.#restore(record);
    this.#isOpen = true;
    this.#dispatch();
  }

  async submit({ files, ...draft }: Draft): Promise<Entry> {
    if (!this.#isOpen) {
      throw new Problem(503, "The server is ending; try again later.", { retryAfter: 10 });
    }
    const { queue, locate, store } = this.#options;
    if (draft.kind === "train") this.#trainings.requireNewName(draft.name);
    if (this.#unfinished().length + this.#arriving >= queue) {
      throw queueFull(queue, "this server takes", this.#retryAfter());
    }
    const common = {
      id: randomUUID(),
      state: "queued" as const,
      created: Date.now(),
      crashes: 0,
      restarts: 0,
    };
    const record: JobRecord =
      draft.kind === "draw"
        ? { ...draft, ...common, pictures: [] }
        : { ...draft, ...common, samples: [], files: [] };
    this.#arriving++;
    try {
      const located = record.kind === "draw" ? await locate(record) : undefined;
      await store.add(record, files);
      const row = this.#add(record, located);
      this.#dispatch();
      return row;
    } finally {
      this.#arriving--;
    }
  }

  async get(id: string): Promise<Row> {
    const row = this.#rows.get(id);
    if (row) return row;
    throw noJob(id);
  }

  async drawing(id: string): Promise<Entry<DrawRecord>> {
    return asDrawing(await this.get(id));
  }

  async training(id: string): Promise<TrainingRow> {
    const row = await this.get(id);
    if (trains(row)) return row;
    throw noTraining();
  }

  async list(most: number): Promise<readonly Entry[]> {
    return [...this.#rows.values()].toReversed().slice(0, most);
  }

  asJob(entry: Entry): AnyJob {
    this.#open ??= this.#unfinished();
    return jobView(entry, this.#open);
  }

  async cancel(id: string): Promise<Entry> {
    const row = await this.get(id);
    if (isOver(row.record) && trains(row)) {
      await this.#trainings.remove(row);
      return row;
    }
    if (isOver(row.record)) {
      throw new Problem(409, `The job is over: it is ${row.record.state}.`, { code: "job_over" });
    }
    row.cancelling = true;
    if (row.record.state !== "running") await this.#finish(row, "cancelled", {});
    // The state stays "running" until the process has stopped, before its next step.
    else if (trains(row)) this.#trainings.trainer.stop(id);
    else this.#pool.cancel(row.key, id);
    return row;
  }

  async ended(id: string, signal: AbortSignal): Promise<Entry> {
    const row = await this.get(id);
    await untilOver(row, signal, () => void this.cancel(id).catch(() => undefined));
    return row;
  }

  async pause(id: string): Promise<Entry> {
    const row = await this.training(id);
    await this.#trainings.pause(row);
    return row;
  }

  async resume(id: string): Promise<Entry> {
    const row = await this.training(id);
    await this.#trainings.resume(row);
    return row;
  }

  async sample(id: string): Promise<Entry> {
    const row = await this.training(id);
    this.#trainings.sample(row);
    return row;
  }

  async read({ record }: Entry, file: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.#options.store.read(record.id, file);
  }

  lengths(): Record<"queued" | "running", number> {
    const lengths = { queued: 0, running: 0 };
    for (const { record } of this.#unfinished()) lengths[record.state as "queued" | "running"]++;
    return lengths;
  }

  get processes(): number {
    return this.#pool.processes.size;
  }

  notReady(): string | undefined {
    return this.#isOpen ? undefined : "The server is starting or ending.";
  }

  #path(id: string, file: string): string {
    return join(this.#options.store.folder(id), file);
  }

  async close(graceMs: number): Promise<void> {
    this.#isOpen = false;
    const ended = "The server ended before it was drawn; send it again.";
    for (const row of this.#unfinished()) {
      if (row.record.state === "queued" && isAttached(row.record)) await this.#fail(row, ended);
      // It writes a checkpoint, from which the next start goes on.
      if (row.record.state === "running" && trains(row))
        this.#trainings.trainer.stop(row.record.id);
    }
    const until = Date.now() + graceMs;
    const running = () => this.#unfinished().filter(({ record }) => record.state === "running");
    while (running().length > 0 && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await Promise.all([this.#pool.close(), this.#trainings.trainer.close()]);
    for (const row of running()) {
      if (isAttached(row.record)) await this.#fail(row, ended);
      // It is drawn anew at the next start.
      else await this.#change(row, { state: "queued", started: undefined });
    }
    await Promise.all([...this.#rows.values()].map(({ persist }) => persist(async () => {})));
  }

  /** Jobs that wait or run. */
  #unfinished(): Row[] {
    return [...this.#rows.values()].filter(
      ({ record: { state } }) => state === "queued" || state === "running",
    );
  }

  #retryAfter(): number {
    return retryAfter(this.#unfinished(), this.counts.ended.succeeded, this.counts.seconds);
  }

  #add(record: JobRecord, located?: Located): Row {
    const row: Row = {
      record,
      located,
      log: jobLog(),
      step: record.state === "succeeded" ? stepsOf(record) : 0,
      steps: stepsOf(record),
      key: JSON.stringify(located ?? null),
      persist: turns(),
      cancelling: false,
      pausing: false,
    };
    this.#rows.set(record.id, row);
    this.#open = undefined;
    this.#announce(row);
    if (isOver(record)) row.log.end();
    return row;
  }

  /** Takes up a job after a restart of the server. */
  async #restore(record: JobRecord): Promise<void> {
    if (record.kind === "train") return this.#trainings.restore(record, MOST_RESTARTS);
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
      const queued = this.#unfinished().filter(({ record }) => record.state === "queued");
      const training = queued.find(trains);
      if (training) this.#trainings.begin(training);
      const waiting = queued.filter(draws);
      const next = nextJobs(waiting, this.#pool, this.#options.batch);
      if (next.length === 0) return;
      for (const row of next) this.#begin(row);
    }
  }

  #begin(row: Row & Entry<DrawRecord>): void {
    const { id, settings, outputFormat, previews, model, given } = row.record;
    const { store, memory, version } = this.#options;
    const folder = store.folder(id);
    this.#pool.draw(
      row.key,
      { kind: "open", ...row.located!, memory },
      {
        kind: "draw",
        id,
        settings,
        folder,
        given,
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
    if (row.pausing) return this.#trainings.wait(row, "paused");
    const crashes = row.record.crashes + 1;
    if (crashes >= MOST_CRASHES) {
      await this.#change(row, { crashes });
      return this.#fail(
        row,
        draws(row)
          ? crashedTwice(how)
          : `The process that trained it ended by itself (${how}), twice; try a smaller model.`,
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

  async #finish(row: Row, state: keyof Counts["ended"], more: Changes): Promise<void> {
    if (isOver(row.record)) return;
    this.counts.ended[state]++;
    const ended = Date.now();
    if (state === "succeeded" && draws(row)) {
      this.counts.seconds += (ended - row.record.started!) / 1000;
    }
    const { error } = more;
    // Errors name files, of which clients need not know where they lie.
    const folder = join(this.#options.store.folder(row.record.id), "/");
    const told = error === undefined ? more : { ...more, error: error.replaceAll(folder, "") };
    await this.#change(row, { state, ended, ...told });
    this.#announce(row);
    row.log.end();
    await this.#forgetOldest();
    this.#dispatch();
  }

  /** Changes a job, here and on disk. What cannot be written down still happens, and is reported. */
  #change(row: Row, changes: Changes): Promise<void> {
    row.record = { ...row.record, ...changes } as JobRecord;
    this.#open = undefined;
    const { record } = row;
    return row
      .persist(() => this.#options.store.save(record))
      .catch((error: Error) => this.#options.log(`Job ${record.id}: ${error.message}`));
  }

  #announce(row: Row): void {
    row.log.add({ kind: "job", job: this.asJob(row) });
  }

  async #forgetOldest(): Promise<void> {
    const over = [...this.#rows.values()].filter((row) => draws(row) && isOver(row.record));
    for (const { record } of over.slice(0, Math.max(0, over.length - KEPT))) {
      this.#rows.delete(record.id);
      await this.#options.store.remove(record.id);
    }
  }
}

const isAttached = (record: JobRecord) => record.kind === "draw" && record.attached;
