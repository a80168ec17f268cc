/**
 * The table of jobs of a server that shares a queue with others. Each of them accepts, shows and cancels all jobs, whoever draws them;
 * what a request asks for is read from the queue, so that it is never behind what another server has answered.
 */
import { randomUUID } from "node:crypto";
import { UsageError } from "../../engine/errors.ts";
import { openQueue } from "../../queue/connection-node.ts";
import { QueueAwayError } from "../../queue/link-node.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import type { DrawRecord, JobStore } from "../job-store.ts";
import { isOver, jobView, retryAfter, type Viewed } from "../job-view.ts";
import {
  asDrawing,
  type Draft,
  type Entry,
  type JobTable,
  type JobTableOptions,
  noJob,
  noTraining,
  queueFull,
  untilOver,
} from "../jobs.ts";
import { KEPT } from "../limits.ts";
import { Problem } from "../problem.ts";
import type { AnyJob } from "../wire.ts";
import { openSharedEvents } from "./events.ts";
import { sharedModels } from "./models.ts";
import { Replica, type Shared } from "./replica.ts";
import { drawnFile, givenFile, type KeptJob, openSharedStore } from "./store.ts";
import { openWork } from "./work.ts";

export interface SharedTableOptions extends JobTableOptions {
  /** The address of the queue. */
  readonly url: string;
  /** Milliseconds after which a job of a server that says nothing is another one's. */
  readonly lease: number;
  /** Digests of this server's models, by their names. */
  readonly digests: ReadonlyMap<string, string>;
}

/** Milliseconds between searches for jobs that are kept but in no queue, since the server that accepted them ended on the way. */
const SWEEP = 15_000;

/**
 * Joins the servers of a queue.
 *
 * @throws UsageError if the queue cannot be used, or the folder has jobs of a server without a queue
 */
export async function openSharedTable(options: SharedTableOptions): Promise<JobTable> {
  const { store: local, log, queue: limit, lease } = options;
  await requireEmpty(local);
  const queue = await openQueue(options.url, { log });
  return closingOnFailure<JobTable>([queue], async (opened) => {
    let changed: (job: KeptJob) => void = () => {};
    const store = await openSharedStore(queue, (job) => changed(job), log);
    // What waits for messages and the timers would keep the process from ending.
    opened.unshift({ close: async () => store.close() });
    const events = await openSharedEvents(queue, store);
    opened.unshift({ close: async () => events.close() });
    const work = await openWork(queue, { lease, limit, log });
    const models = sharedModels(queue, options.digests);
    const table = new SharedTable({ queue, store, events, work, models }, options);
    opened.unshift({ close: () => table.close(0) });
    changed = (job) => table.replica.changed(job);
    await table.replica.start();
    return table;
  });
}

async function requireEmpty(local: JobStore): Promise<void> {
  const records = await local.load();
  if (records.length === 0) return;
  throw new UsageError(
    "The folder of --output has jobs of a server without --queue, which would not be drawn; give another folder.",
  );
}

class SharedTable implements JobTable {
  readonly replica: Replica;
  readonly #shared: Shared;
  readonly #options: SharedTableOptions;
  readonly #sweeping: NodeJS.Timeout;
  #isEnding = false;
  /** Requests that wait for the end of a job. */
  #attached = 0;

  constructor(shared: Shared, options: SharedTableOptions) {
    this.#shared = shared;
    this.#options = options;
    this.replica = new Replica(shared, {
      ...options,
      id: randomUUID(),
      folder: options.store.folder("."),
      view: (viewed) => jobView(viewed, this.#open()),
    });
    this.#sweeping = setInterval(() => void this.#sweep(), SWEEP);
  }

  get counts() {
    return this.replica.counts;
  }

  get processes(): number {
    return this.replica.processes;
  }

  async submit({ files, ...draft }: Draft): Promise<Entry> {
    if (draft.kind === "train") {
      throw new Problem(
        400,
        "Servers that share a queue do not train; send the training to a server without --queue.",
        { code: "no_training", param: "kind" },
      );
    }
    const { queue, store, events, work, models } = this.#shared;
    const { attempt } = queue;
    if ((await work.size(attempt)) >= this.#options.queue) throw this.#full();
    const common = { id: randomUUID(), state: "queued" as const, created: Date.now() };
    const record: DrawRecord = { ...draft, ...common, crashes: 0, restarts: 0, pictures: [] };
    for (const [name, bytes] of Object.entries(files)) {
      await store.addFile(givenFile(record.id, name), bytes, attempt);
    }
    const kept = await store.create(record, models.digest(record.model), attempt);
    const entry = this.#entry(record);
    await events.begin(this.asJob(entry), attempt);
    if (await work.send(record.model, record.id, attempt)) return entry;
    await events.remove(record.id, attempt);
    await store.remove(kept, attempt);
    throw this.#full();
  }

  async get(id: string): Promise<Entry<DrawRecord>> {
    const kept = await this.#kept(id);
    const { record } = kept;
    if (record.state !== "running") return this.#entry(record);
    const here = this.replica.progress(id);
    if (here) return this.#entry(record, here);
    const last = await this.#shared.events.last(id, this.#shared.queue.attempt);
    return this.#entry(record, last?.event.kind === "progress" ? last.event : undefined);
  }

  async drawing(id: string): Promise<Entry<DrawRecord>> {
    return asDrawing(await this.get(id));
  }

  async training(id: string): Promise<never> {
    await this.get(id);
    throw noTraining();
  }

  async list(most: number): Promise<readonly Entry[]> {
    if (!this.#shared.queue.isUp()) throw new QueueAwayError(this.#shared.queue.url);
    const newest = [...this.#shared.store.known.values()]
      .toSorted((a, b) => b.record.created - a.record.created)
      .slice(0, most);
    return Promise.all(
      newest.map(async ({ record }) =>
        record.state === "running" ? this.get(record.id) : this.#entry(record),
      ),
    );
  }

  asJob(entry: Viewed): AnyJob {
    return jobView(entry, this.#open());
  }

  async cancel(id: string): Promise<Entry> {
    const { queue, store, events, work } = this.#shared;
    const { attempt } = queue;
    for (;;) {
      const kept = await this.#kept(id);
      const { record } = kept;
      if (isOver(record)) {
        throw new Problem(409, `The job is over: it is ${record.state}.`, { code: "job_over" });
      }
      if (record.state === "running") {
        // The state stays "running" until its server has stopped it, before its next step.
        const changed =
          kept.cancelling || (await store.change(kept, { cancelling: true }, attempt));
        if (!changed) continue;
        return this.get(id);
      }
      const cancelled = { ...record, state: "cancelled" as const, ended: Date.now() };
      if (!(await store.change(kept, { record: cancelled }, attempt))) continue;
      this.replica.counts.ended.cancelled++;
      await events.end(this.asJob(this.#entry(cancelled)));
      await work.remove(record.model, id, attempt);
      return this.#entry(cancelled);
    }
  }

  async ended(id: string, signal: AbortSignal): Promise<Entry> {
    const entry = await this.get(id);
    this.#attached++;
    try {
      await untilOver(entry, signal, () => void this.cancel(id).catch(() => undefined));
      return await this.get(id);
    } finally {
      this.#attached--;
    }
  }

  pause = (id: string) => this.training(id);
  resume = (id: string) => this.training(id);
  sample = (id: string) => this.training(id);

  async read({ record: { id } }: Entry, file: string): Promise<Uint8Array<ArrayBuffer>> {
    const { queue, store } = this.#shared;
    const { attempt } = await this.#kept(id);
    const bytes = await store.file(drawnFile(id, attempt, file), queue.attempt);
    if (bytes) return new Uint8Array(bytes);
    throw new Problem(404, `The file ${file} of the job is no longer kept.`, {
      code: "picture_not_found",
    });
  }

  lengths(): Record<"queued" | "running", number> {
    const lengths = { queued: 0, running: 0 };
    for (const { record } of this.#open()) lengths[record.state as "queued" | "running"]++;
    return lengths;
  }

  notReady(): string | undefined {
    const { queue } = this.#shared;
    if (this.#isEnding) return "The server is ending.";
    return queue.isUp() ? undefined : new QueueAwayError(queue.url).message;
  }

  /** Goes on answering, also accepting jobs, which others draw, until those that are drawn here are over. */
  async close(graceMs: number): Promise<void> {
    this.#isEnding = true;
    clearInterval(this.#sweeping);
    const until = Date.now() + graceMs;
    await this.replica.close(until);
    while (this.#attached > 0 && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const { queue, store, events } = this.#shared;
    events.close();
    store.close();
    await queue.close();
  }

  async #kept(id: string): Promise<KeptJob> {
    const isId = /^[\da-f-]{36}$/.test(id);
    const { queue, store } = this.#shared;
    const kept = isId ? await store.get(id, queue.attempt) : undefined;
    if (kept) return kept;
    throw noJob(id);
  }

  #entry(
    record: DrawRecord,
    { step, steps }: { readonly step: number; readonly steps: number } = {
      step: record.state === "succeeded" ? record.settings.steps : 0,
      steps: record.settings.steps,
    },
  ): Entry<DrawRecord> {
    return { record, step, steps, log: this.#shared.events.of(record.id) };
  }

  /** Jobs that are not over, as they were last heard of. */
  #open(): Viewed[] {
    return [...this.#shared.store.known.values()]
      .filter(({ record }) => !isOver(record))
      .map(({ record }) => ({ record, step: 0, steps: 0 }));
  }

  #full(): Problem {
    const { ended, seconds } = this.replica.counts;
    return queueFull(
      this.#options.queue,
      "these servers take",
      retryAfter(this.#open(), ended.succeeded, seconds),
    );
  }

  /** Puts jobs into the queue that are not there, and removes those that are over and too many. */
  async #sweep(): Promise<void> {
    const { queue, store, events, work } = this.#shared;
    const { attempt } = queue;
    try {
      const jobs = [...store.known.values()].toSorted(
        (a, b) => a.record.created - b.record.created,
      );
      const old = Date.now() - SWEEP;
      for (const { record } of jobs) {
        if (isOver(record) || record.created > old) continue;
        await work.send(record.model, record.id, attempt);
      }
      const over = jobs.filter(({ record }) => isOver(record));
      for (const job of over.slice(0, Math.max(0, over.length - KEPT))) {
        await events.remove(job.record.id, attempt);
        await store.remove(job, attempt);
      }
    } catch (error) {
      if (!(error instanceof QueueAwayError)) this.#options.log((error as Error).message);
    }
  }
}
