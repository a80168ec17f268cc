/** What happened to a job, numbered, for those who follow it, also after a lost connection. */
import type { JobEvent } from "./wire.ts";

export interface NumberedEvent {
  readonly id: number;
  readonly event: JobEvent;
}

export type Preview = Extract<JobEvent, { kind: "preview" }>;

/** The events of a job, as those who follow it see them. */
export interface JobEvents {
  /** Events behind the one of a number, then those that come, until the job is over or the signal aborts. */
  follow(after: number, signal: AbortSignal): AsyncGenerator<NumberedEvent>;
  /** The last preview, if there is one. */
  preview(): Promise<Preview | undefined>;
}

/** The events of a job of this server, in its memory. */
export interface JobLog extends JobEvents {
  /** Adds an event. A preview takes the place of the one before it. */
  add(event: JobEvent): void;
  /** Ends the log. A drawing keeps only its last event, and if it was cancelled its last preview; a training keeps all events. */
  end(): void;
}

export function jobLog(): JobLog {
  let events: NumberedEvent[] = [];
  let last = 0;
  let isOver = false;
  let waking = new Set<() => void>();
  const wake = () => {
    const all = waking;
    waking = new Set();
    for (const each of all) each();
  };
  const happened = (signal: AbortSignal) =>
    new Promise<void>((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        waking.delete(done);
        resolve();
      };
      waking.add(done);
      signal.addEventListener("abort", done);
    });
  return {
    add(event) {
      if (event.kind === "preview") events = events.filter((each) => each.event.kind !== "preview");
      events.push({ id: ++last, event });
      wake();
    },
    end() {
      isOver = true;
      const final = events.findLast(({ event }) => event.kind === "job");
      if (final?.event.kind !== "job" || final.event.job.kind === "train") return wake();
      // The last preview of a cancelled drawing can still be asked for.
      const isCancelled = final.event.job.state === "cancelled";
      events = events.filter(
        (each) => each === final || (isCancelled && each.event.kind === "preview"),
      );
      wake();
    },
    preview: async () => events.map(({ event }) => event).find((event) => event.kind === "preview"),
    async *follow(after, signal) {
      // A number from before a restart says nothing.
      let seen = after > last ? 0 : after;
      while (!signal.aborted) {
        const next = events[firstAfter(events, seen)];
        if (next) {
          seen = next.id;
          yield next;
        } else if (isOver) {
          return;
        } else {
          await happened(signal);
        }
      }
    },
  };
}

/** The index of the first event behind a number, by bisection, since a training has as many events as steps. */
function firstAfter(events: readonly NumberedEvent[], seen: number): number {
  let [low, high] = [0, events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle]!.id > seen) high = middle;
    else low = middle + 1;
  }
  return low;
}
