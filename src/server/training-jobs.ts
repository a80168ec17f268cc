/** Trainings in the table of jobs: one is at work at a time, and the model of each is offered once it is there. */
import type { Changes, Entry, JobTableOptions, Row } from "./jobs.ts";
import { trains } from "./jobs.ts";
import { type JobRecord, trainingFolders, type TrainRecord } from "./job-store.ts";
import { isOver, samplesView } from "./job-view.ts";
import { Problem } from "./problem.ts";
import { type ServerTrainer, serverTrainer } from "./trainer.ts";
import { earlierLosses } from "./training-losses.ts";
import type { FromTraining } from "./training-messages.ts";

export type TrainingRow = Row & Entry<TrainRecord>;

/** The part of the table of jobs that trainings use. */
export interface TableOfJobs {
  readonly options: Pick<JobTableOptions, "publish" | "withdraw" | "knows" | "store" | "log">;
  rows(): Iterable<Row>;
  row(id: string): Row | undefined;
  add(record: TrainRecord): Row;
  drop(id: string): Promise<void>;
  /** Changes a job, here and on disk. */
  change(row: Row, changes: Changes): Promise<void>;
  announce(row: Row): void;
  finish(row: Row, state: "succeeded" | "failed" | "cancelled", more: Changes): Promise<void>;
  path(id: string, file: string): string;
  dispatch(): void;
  /** A process ended by itself. */
  crashed(row: Row, how: string): void;
}

export class TrainingJobs {
  readonly trainer: ServerTrainer;
  readonly #table: TableOfJobs;

  constructor(table: TableOfJobs) {
    this.#table = table;
    this.trainer = serverTrainer({
      onEvent: (event) => void this.#heard(event),
      onCrash: (id, how) => table.crashed(table.row(id)!, how),
    });
  }

  /** Begins a training, if none is at work. */
  begin(row: TrainingRow): void {
    if (this.trainer.current() !== undefined) return;
    const { id, config, started = Date.now() } = row.record;
    const folder = this.#table.options.store.folder(id);
    row.pausing = false;
    this.trainer.train({ kind: "train", id, config, folder });
    void this.#table.change(row, { state: "running", started });
    this.#table.announce(row);
  }

  /**
   * Takes up a training after a restart of the server.
   *
   * @param most restarts while it is at work
   */
  async restore(record: TrainRecord, most: number): Promise<void> {
    const table = this.#table;
    const isRunning = record.state === "running";
    const restarts = record.restarts + (isRunning ? 1 : 0);
    const row = table.add({ ...record, restarts, state: isRunning ? "queued" : record.state });
    for (const each of await earlierLosses(table.path(record.id, trainingFolders.model))) {
      row.step = each.step;
      row.log.add({ kind: "progress", steps: row.steps, ...each });
    }
    const error = `The server ended ${restarts} times while it was trained.`;
    if (isOver(record)) row.log.end();
    else if (restarts >= most) await table.finish(row, "failed", { error });
    else if (isRunning) await table.change(row, {});
  }

  /** Offers the model of a training that has succeeded; returns what is wrong with it. */
  async publish(record: JobRecord): Promise<string | undefined> {
    if (record.kind !== "train" || record.state !== "succeeded") return undefined;
    const table = this.#table;
    try {
      const folder = table.path(record.id, trainingFolders.model);
      await table.options.publish(record.name, folder);
      return undefined;
    } catch (error) {
      const { message } = error as Error;
      table.options.log(`The model of training ${record.id}: ${message}`);
      return message;
    }
  }

  /** @throws Problem if a model has the name, or a training whose model will */
  requireNewName(name: string): void {
    const isTaken = [...this.#table.rows()].some(
      (row) =>
        trains(row) &&
        row.record.name === name &&
        row.record.state !== "failed" &&
        row.record.state !== "cancelled",
    );
    if (!isTaken && !this.#table.options.knows(name)) return;
    throw new Problem(
      409,
      `There is a model or a training with the name ${JSON.stringify(name)}; give another name.`,
      { code: "name_taken", param: "name" },
    );
  }

  /** Stops a training until it is resumed. @throws Problem if it neither waits nor runs */
  async pause(row: TrainingRow): Promise<void> {
    const { state, id } = row.record;
    if (state !== "queued" && state !== "running") throw notNow(row.record, "paused");
    row.pausing = true;
    if (state === "running") this.trainer.stop(id);
    else await this.wait(row, "paused");
  }

  /** Goes on with a training. @throws Problem if it is not paused */
  async resume(row: TrainingRow): Promise<void> {
    if (row.record.state !== "paused") throw notNow(row.record, "resumed");
    await this.wait(row, "queued");
    this.#table.dispatch();
  }

  /** Draws samples after the current step. @throws Problem if it does not run */
  sample(row: TrainingRow): void {
    if (row.record.state !== "running") throw notNow(row.record, "sampled");
    this.trainer.sample(row.record.id);
  }

  /** Removes a training that is over, with its model. */
  async remove({ record: { id, name, state } }: TrainingRow): Promise<void> {
    if (state === "succeeded") await this.#table.options.withdraw(name);
    await this.#table.drop(id);
  }

  /** Keeps a training that is not worked on. */
  async wait(row: Row, state: "paused" | "queued"): Promise<void> {
    await this.#table.change(row, { state });
    this.#table.announce(row);
  }

  async #heard(event: FromTraining): Promise<void> {
    const table = this.#table;
    const row = table.row(event.id);
    if (!row || !trains(row) || isOver(row.record)) return;
    if (event.kind === "trained") {
      const { files } = event;
      const problem = await this.publish({ ...row.record, files, state: "succeeded" });
      if (problem === undefined) await table.finish(row, "succeeded", { files });
      else await table.finish(row, "failed", { error: problem });
    } else if (event.kind === "failed") {
      await table.finish(row, "failed", { error: event.failure.message });
    } else if (event.kind === "stopped") {
      if (row.cancelling) return table.finish(row, "cancelled", {});
      await this.wait(row, row.pausing ? "paused" : "queued");
      table.dispatch();
    } else {
      await this.#note(row, event);
    }
  }

  async #note(row: TrainingRow, event: Note): Promise<void> {
    const { log, record } = row;
    switch (event.kind) {
      case "started":
        log.add({ kind: "note", parameters: event.parameters });
        return;
      case "warning":
        log.add({ kind: "note", message: event.message });
        return;
      case "step": {
        const { kind: _kind, id: _id, ...progress } = event;
        row.step = event.step;
        row.steps = event.steps;
        log.add({ kind: "progress", ...progress });
        return;
      }
      case "sampled": {
        const { step, count, of } = event;
        const before = record.samples.filter((each) => each.step !== step);
        log.add({ kind: "sample", ...samplesView(record.id, { step, count, of }) });
        await this.#table.change(row, { samples: [...before, { step, count, of }] });
      }
    }
  }
}

/** The events of a training for its followers. */
type Note = Exclude<FromTraining, { kind: "trained" | "failed" | "stopped" }>;

function notNow({ state }: TrainRecord, wanted: string): Problem {
  return new Problem(409, `The training is ${state}, so it cannot be ${wanted} now.`, {
    code: "wrong_state",
  });
}
