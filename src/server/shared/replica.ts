/**
 * The drawing of a server that shares a queue: takes jobs for which it has room, draws them in its processes, and ends each for all
 * servers. A server that was paused for longer than the lease finds that its job belongs to another one, and drops it.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { turns } from "../../engine/turns.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { createFolder } from "../../weights/sources/system-error-node.ts";
import { type DrawingEvent, type DrawingPool, drawingPool } from "../drawing-pool.ts";
import { nextJobs, placesOf } from "../dispatch.ts";
import type { DrawRecord } from "../job-store.ts";
import { isOver, type Viewed } from "../job-view.ts";
import { crashedTwice, type JobTableOptions, type Located } from "../jobs.ts";
import { MOST_CRASHES, MOST_RESTARTS } from "../limits.ts";
import type { AnyJob } from "../wire.ts";
import type { EventWriter, SharedEvents } from "./events.ts";
import type { SharedModels } from "./models.ts";
import {
  type Call,
  drawnFile,
  givenFile,
  type KeptJob,
  type SharedStore,
  startFiles,
} from "./store.ts";
import type { Delivery, Work } from "./work.ts";

/** What a server shares with others. */
export interface Shared {
  readonly queue: Queue;
  readonly store: SharedStore;
  readonly events: SharedEvents;
  readonly work: Work;
  readonly models: SharedModels;
}

export type ReplicaOptions = Pick<
  JobTableOptions,
  "processes" | "batch" | "memory" | "version" | "locate" | "log"
> & {
  /** A name of its own. */
  readonly id: string;
  /** The folder for files of jobs that are drawn. */
  readonly folder: string;
  /** A job as it is shown. */
  readonly view: (job: Viewed) => AnyJob;
};

/** A job that was delivered here. */
interface Row {
  kept: KeptJob;
  delivery: Delivery;
  readonly key: string;
  readonly located: Located;
  writer?: EventWriter;
  step: number;
  steps: number;
  /** It waits for room, is drawn, or ends. */
  phase: "held" | "drawn" | "ending";
}

/** Deliveries after which a job fails that no server could begin, since it lacks a LoRA, for example. */
const MOST_REFUSALS = 60;
/** Milliseconds until a job that this server cannot begin is offered again. */
const REFUSED = 1000;

export class Replica {
  readonly counts = {
    ended: { succeeded: 0, failed: 0, cancelled: 0 },
    seconds: 0,
    steps: 0,
    crashes: 0,
  };
  readonly #shared: Shared;
  readonly #options: ReplicaOptions;
  readonly #pool: DrawingPool;
  readonly #rows = new Map<string, Row>();
  readonly #ending = new AbortController();
  readonly #turn = turns();
  readonly #lease: NodeJS.Timeout;
  /** Why jobs were left to other servers, each reason of which is reported once. */
  readonly #told = new Set<string>();
  /** Told when there may be room. */
  #waiting = new Set<() => void>();
  #taking: Promise<unknown> = Promise.resolve();

  constructor(shared: Shared, options: ReplicaOptions) {
    this.#shared = shared;
    this.#options = options;
    this.#pool = drawingPool(options.processes, {
      onEvent: (event) => this.#guard(event.id, this.#heard(event)),
      onRefused: (ids, { failure }) => {
        for (const id of ids) {
          this.#guard(id, this.#end(this.#rows.get(id), "failed", failure.message));
        }
      },
      onCrash: (ids, how) => {
        this.counts.crashes++;
        options.log(`A process that draws ended by itself (${how}); its jobs are drawn again.`);
        for (const id of ids) this.#guard(id, this.#again(this.#rows.get(id), how));
      },
    });
    const keep = () => {
      for (const { delivery } of this.#rows.values()) delivery.keep();
    };
    this.#lease = setInterval(keep, shared.work.lease / 3);
  }

  /** @throws UsageError if the other servers of the queue have another lease */
  async start(): Promise<void> {
    const { work, models } = this.#shared;
    const { ended } = await work.take(
      models.names,
      () => this.#room(),
      (delivery) =>
        this.#received(delivery).catch((error: Error) => this.#options.log(error.message)),
      this.#ending.signal,
    );
    this.#taking = ended;
  }

  get processes(): number {
    return this.#pool.processes.size;
  }

  /** The step of a job that is drawn here. */
  progress(id: string): Viewed | undefined {
    const row = this.#rows.get(id);
    return row?.phase === "drawn" ? { ...row, record: row.kept.record } : undefined;
  }

  /** Told of a job that was changed by any server. */
  changed(kept: KeptJob): void {
    const row = this.#rows.get(kept.record.id);
    if (!row || row.phase === "ending" || kept.revision <= row.kept.revision) return;
    const isElsewhere = kept.record.state === "running" && kept.replica !== this.#options.id;
    if (isElsewhere || isOver(kept.record)) return this.#drop(row);
    row.kept = kept;
    if (!kept.cancelling) return;
    if (row.phase === "drawn") this.#pool.cancel(row.key, kept.record.id);
    else this.#guard(kept.record.id, this.#end(row, "cancelled"));
  }

  /** What goes wrong with a job beside its drawing is reported; the job is delivered again after the lease. */
  #guard(id: string, work: Promise<void>): void {
    work.catch((error: Error) => {
      this.#rows.delete(id);
      if (!this.#ending.signal.aborted) this.#options.log(`Job ${id}: ${error.message}`);
    });
  }

  /** Takes no more jobs, waits for those that are drawn for a time, and gives the others back to the queue. */
  async close(until: number): Promise<void> {
    this.#ending.abort();
    this.#shared.models.close();
    this.#wake();
    await this.#taking;
    for (const row of this.#rows.values()) {
      if (row.phase !== "held") continue;
      this.#rows.delete(row.kept.record.id);
      row.delivery.giveBack();
    }
    while (this.#rows.size > 0 && Date.now() < until) await setTimeout(50);
    await this.#pool.close();
    const soon = AbortSignal.timeout(5000);
    const call: Call = (made) => this.#shared.queue.persist(made, soon);
    for (const row of this.#rows.values()) {
      if (row.phase !== "drawn") continue;
      // Without an answer, the others begin it after the lease.
      await this.#requeue(row, {}, call).catch(() => undefined);
      row.delivery.giveBack();
    }
    clearInterval(this.#lease);
  }

  /** Resolves when this server would begin another job at once, or ends. */
  async #room(): Promise<void> {
    const { batch } = this.#options;
    const hasRoom = () => {
      if ([...this.#rows.values()].some(({ phase }) => phase === "held")) return false;
      const isOpen = [...this.#pool.processes.values()].some(
        ({ jobs }) => [...jobs.values()].reduce((sum, each) => sum + each, 0) < batch,
      );
      return isOpen || this.#pool.hasRoom();
    };
    while (!this.#ending.signal.aborted && !hasRoom()) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #wake(): void {
    const all = this.#waiting;
    this.#waiting = new Set();
    for (const each of all) each();
  }

  async #received(delivery: Delivery): Promise<void> {
    const { store, events, queue, models } = this.#shared;
    const { id } = delivery;
    const here = this.#rows.get(id);
    // The lease ran out while the queue was away, but the job is still drawn.
    if (here) return void (here.delivery = delivery);
    const kept = await store.get(id, queue.persist);
    if (kept && isOver(kept.record)) await events.end(this.#view(kept.record));
    if (!kept || isOver(kept.record)) return delivery.done();
    if (this.#ending.signal.aborted) return delivery.giveBack();
    const wasDrawn = kept.record.state === "running";
    const restarts = kept.record.restarts + (wasDrawn ? 1 : 0);
    const row = {
      kept,
      delivery,
      step: 0,
      steps: kept.record.settings.steps,
      phase: "held",
    } as const;
    const end = (state: "failed" | "cancelled", error?: string) =>
      this.#end({ ...row, key: "", located: { source: "", loras: [] } }, state, error);
    if (kept.cancelling) return end("cancelled");
    if (restarts >= MOST_RESTARTS) {
      return end("failed", `The server ended ${restarts} times while it was drawn.`);
    }
    let located: Located;
    try {
      models.requireSame(kept);
      located = await this.#options.locate(kept.record);
    } catch (error) {
      const { message } = error as Error;
      const isLast = delivery.count >= MOST_REFUSALS && !(await models.isElsewhere(kept));
      if (isLast) return end("failed", message);
      if (!this.#told.has(message))
        this.#options.log(`Job ${id} is left to another server: ${message}`);
      this.#told.add(message);
      return delivery.giveBack(REFUSED);
    }
    const record = { ...kept.record, restarts };
    this.#rows.set(id, {
      ...row,
      kept: { ...kept, record },
      key: JSON.stringify(located),
      located,
    });
    this.#dispatch();
  }

  /** Begins the jobs for which there is room, one after another. */
  #dispatch(): void {
    const begin = async (): Promise<void> => {
      for (;;) {
        if (this.#ending.signal.aborted) return;
        const held = [...this.#rows.values()]
          .filter(({ phase }) => phase === "held")
          .map((row) => ({ row, key: row.key, record: row.kept.record }));
        const [next] = nextJobs(held, this.#pool, this.#options.batch);
        if (!next) return this.#wake();
        const work = this.#begin(next.row);
        this.#guard(next.record.id, work);
        await work.catch(() => undefined);
      }
    };
    void this.#turn(begin);
  }

  async #begin(row: Row): Promise<void> {
    const { store, events, queue } = this.#shared;
    const { id } = row.kept.record;
    const record = { ...row.kept.record, state: "running" as const, started: Date.now() };
    const attempt = row.kept.attempt + 1;
    const begun = await store.change(
      row.kept,
      { record, attempt, replica: this.#options.id },
      queue.persist,
    );
    if (row.phase !== "held") return;
    if (!begun) {
      // Somebody has changed it, so it is looked at anew.
      this.#rows.delete(id);
      return this.#received(row.delivery);
    }
    if (begun.revision > row.kept.revision) row.kept = begun;
    row.phase = "drawn";
    row.step = 0;
    row.writer = await events.writer(id);
    this.#guard(id, row.writer.add({ kind: "job", job: this.#view(record) }));
    await this.#fetchFiles(record);
    if (!isDrawn(row)) return;
    if (row.kept.cancelling) return this.#end(row, "cancelled");
    const { settings, outputFormat, previews, model, given } = record;
    const { memory, version } = this.#options;
    const folder = this.#folder(id);
    this.#pool.draw(
      row.key,
      { kind: "open", ...row.located, memory },
      { kind: "draw", id, settings, folder, given, outputFormat, previews, model, version },
      placesOf({ key: row.key, record }),
    );
  }

  /** Writes the pictures that a job starts from where its process reads them. */
  async #fetchFiles(record: DrawRecord): Promise<void> {
    const { store, queue } = this.#shared;
    const { id } = record;
    await createFolder(this.#folder(id));
    for (const name of startFiles(record)) {
      const bytes = await store.file(givenFile(id, name), queue.persist);
      if (bytes) await writeFileAtomic(join(this.#folder(id), name), bytes);
    }
  }

  async #heard(event: DrawingEvent): Promise<void> {
    const row = this.#rows.get(event.id);
    // One that was dropped has stopped, and makes room.
    if (row?.phase !== "drawn") return this.#dispatch();
    switch (event.kind) {
      case "progress":
        this.counts.steps++;
        row.step = event.step;
        row.steps = event.steps;
        return row.writer!.add({ kind: "progress", step: event.step, steps: event.steps });
      case "preview": {
        const pictures = event.pictures.map((bytes) => Buffer.from(bytes).toString("base64"));
        const { step, steps } = event;
        return row.writer!.add({ kind: "preview", step, steps, pictures });
      }
      case "drawn":
        return this.#end(row, "succeeded", undefined, event.pictures);
      case "cancelled":
        return this.#end(row, "cancelled");
      case "failed":
        return this.#end(row, "failed", event.failure.message);
    }
  }

  /** A job whose process ended by itself. */
  async #again(row: Row | undefined, how: string): Promise<void> {
    if (!row || row.phase !== "drawn") return;
    if (row.kept.cancelling) return this.#end(row, "cancelled");
    const crashes = row.kept.record.crashes + 1;
    if (crashes >= MOST_CRASHES) return this.#end(row, "failed", crashedTwice(how));
    await this.#requeue(row, { crashes }, this.#shared.queue.persist);
    this.#dispatch();
  }

  /** Has a job wait again, here or in the queue. */
  async #requeue(row: Row, changes: Partial<DrawRecord>, call: Call): Promise<void> {
    const { record } = row.kept;
    const waiting = { ...record, state: "queued" as const, started: undefined, ...changes };
    const kept = await this.#shared.store.change(row.kept, { record: waiting }, call);
    if (!kept) return;
    row.kept = kept;
    row.phase = "held";
    await row.writer?.add({ kind: "job", job: this.#view(waiting) });
  }

  /** Ends a job for all servers, unless it is another server's by now. */
  async #end(
    row: Row | undefined,
    state: "succeeded" | "failed" | "cancelled",
    error?: string,
    pictures: DrawRecord["pictures"] = [],
  ): Promise<void> {
    if (!row || row.phase === "ending") return;
    row.phase = "ending";
    const { store, events, queue } = this.#shared;
    const { id } = row.kept.record;
    const { attempt } = row.kept;
    for (const { file } of pictures) {
      const bytes = await readFile(join(this.#folder(id), file));
      await store.addFile(drawnFile(id, attempt, file), bytes, queue.persist);
    }
    const ended = Date.now();
    let job: KeptJob | undefined;
    for (;;) {
      const record = { ...row.kept.record, state, ended, error, pictures };
      job = await store.change(row.kept, { record }, queue.persist);
      const now = job ?? (await store.get(id, queue.persist));
      if (job || !now || isOver(now.record) || now.attempt !== attempt) break;
      row.kept = now;
    }
    if (job) {
      this.counts.ended[state]++;
      if (state === "succeeded") this.counts.seconds += (ended - job.record.started!) / 1000;
      await row.writer?.settled();
      await events.end(this.#view(job.record, row));
      await this.#clear(job);
    } else {
      const own = pictures.map(({ file }) => drawnFile(id, attempt, file));
      await store.removeFiles(own, queue.persist);
    }
    if (job) row.delivery.done();
    await this.#forget(row);
  }

  /** Removes what earlier attempts at a job, whose servers are gone, may have left. */
  async #clear({ record, attempt }: KeptJob): Promise<void> {
    const { store, queue } = this.#shared;
    const { id, pictures } = record;
    for (let before = 1; before < attempt; before++) {
      const names = pictures.map(({ file }) => drawnFile(id, before, file));
      await store.removeFiles(names, queue.persist);
    }
  }

  /** Lets go of a job that is another server's, or over. */
  #drop(row: Row): void {
    if (row.phase === "drawn") this.#pool.cancel(row.key, row.kept.record.id);
    row.phase = "ending";
    void this.#forget(row);
  }

  async #forget(row: Row): Promise<void> {
    const { id } = row.kept.record;
    if (this.#rows.get(id) === row) this.#rows.delete(id);
    await rm(this.#folder(id), { recursive: true, force: true });
    this.#dispatch();
  }

  #folder(id: string): string {
    return join(this.#options.folder, id);
  }

  #view(record: DrawRecord, { step = 0, steps = record.settings.steps } = {}): AnyJob {
    return this.#options.view({ record, step, steps });
  }
}

/** The phase may have changed while something was waited for. */
const isDrawn = ({ phase }: Row) => phase === "drawn";
