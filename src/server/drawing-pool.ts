/** The processes that draw: one for each model with its LoRAs, of which the least recently used makes room for another. */
import { startChild, type Child } from "../engine/runtime/child-node.ts";
import type { DrawMessage, FromDrawing, OpenMessage, ToDrawing } from "./drawing-messages.ts";

export type DrawingEvent = Exclude<FromDrawing, { kind: "opened" | "refused" }>;

export interface PoolEvents {
  onEvent(event: DrawingEvent): void;
  /** A process could not open its model; `ids` are the jobs that it was given. */
  onRefused(ids: readonly string[], failure: Extract<FromDrawing, { kind: "refused" }>): void;
  /** A process ended by itself. */
  onCrash(ids: readonly string[], how: string): void;
}

/** A process, as the choice of the next job sees it. */
export interface DrawingProcess {
  readonly key: string;
  /** The jobs that it draws, and the places that each takes. */
  readonly jobs: ReadonlyMap<string, number>;
}

export interface DrawingPool {
  readonly processes: ReadonlyMap<string, DrawingProcess>;
  /** Returns true if a process for another key can be started now, perhaps in place of an idle one. */
  hasRoom(): boolean;
  /** Gives a job to the process of a key, which is started if there is none. */
  draw(key: string, open: OpenMessage, message: DrawMessage, places: number): void;
  cancel(key: string, id: string): void;
  /** Ends all processes at once. */
  close(): Promise<void>;
}

interface Running extends DrawingProcess {
  readonly jobs: Map<string, number>;
  readonly child: Child<ToDrawing>;
  lastUsed: number;
}

/** @param most processes at the same time */
export function drawingPool(most: number, events: PoolEvents): DrawingPool {
  const processes = new Map<string, Running>();
  /** Processes that were told to end, until they have. */
  const ending = new Set<Promise<void>>();

  const end = ({ key, child }: Running) => {
    processes.delete(key);
    const exited = child.end();
    ending.add(exited);
    void exited.then(() => ending.delete(exited));
  };
  const idle = () =>
    [...processes.values()]
      .filter(({ jobs }) => jobs.size === 0)
      .toSorted((a, b) => a.lastUsed - b.lastUsed);

  const start = (key: string, open: OpenMessage): Running => {
    if (processes.size >= most) end(idle()[0]!);
    const child = startChild<ToDrawing>(
      "server/drawing-process",
      (message) => heard(running, message as FromDrawing),
      (how) => {
        processes.delete(key);
        events.onCrash([...running.jobs.keys()], how);
      },
    );
    const running: Running = { key, jobs: new Map(), child, lastUsed: Date.now() };
    processes.set(key, running);
    child.send(open);
    return running;
  };

  const heard = (running: Running, message: FromDrawing) => {
    if (message.kind === "opened") return;
    if (message.kind === "refused") {
      end(running);
      events.onRefused([...running.jobs.keys()], message);
      return;
    }
    const isOver = message.kind !== "progress" && message.kind !== "preview";
    if (isOver) {
      running.jobs.delete(message.id);
      running.lastUsed = Date.now();
    }
    events.onEvent(message);
  };

  return {
    processes,
    hasRoom: () => processes.size < most || idle().length > 0,
    draw(key, open, message, places) {
      const running = processes.get(key) ?? start(key, open);
      running.jobs.set(message.id, places);
      running.child.send(message);
    },
    cancel: (key, id) => processes.get(key)?.child.send({ kind: "cancel", id }),
    async close() {
      for (const running of processes.values()) end(running);
      await Promise.all(ending);
    },
  };
}
