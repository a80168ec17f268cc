/** The process that trains: one training at a time, beside the processes that draw. */
import { type Child, startChild } from "../engine/runtime/child-node.ts";
import type { FromTraining, ToTraining } from "./training-messages.ts";

export interface TrainerEvents {
  onEvent(event: FromTraining): void;
  /** The process ended by itself. */
  onCrash(id: string, how: string): void;
}

export interface ServerTrainer {
  /** The job that is trained now. */
  current(): string | undefined;
  train(message: Extract<ToTraining, { kind: "train" }>): void;
  /** Ends a training after its current step, which is reported as an event. */
  stop(id: string): void;
  /** Draws samples after the current step. */
  sample(id: string): void;
  /** Ends the process at once. */
  close(): Promise<void>;
}

export function serverTrainer(events: TrainerEvents): ServerTrainer {
  let running: { readonly id: string; readonly child: Child<ToTraining> } | undefined;
  const ending = new Set<Promise<void>>();
  const end = () => {
    const exited = running?.child.end() ?? Promise.resolve();
    running = undefined;
    ending.add(exited);
    return exited.then(() => void ending.delete(exited));
  };
  const tell = (id: string, message: ToTraining) => {
    if (running?.id === id) running.child.send(message);
  };
  return {
    current: () => running?.id,
    train(training) {
      const child = startChild<ToTraining>(
        "server/training-process",
        (message) => {
          const event = message as FromTraining;
          if (["trained", "stopped", "failed"].includes(event.kind)) void end();
          events.onEvent(event);
        },
        (how) => {
          running = undefined;
          events.onCrash(training.id, how);
        },
      );
      running = { id: training.id, child };
      child.send(training);
    },
    stop: (id) => tell(id, { kind: "stop" }),
    sample: (id) => tell(id, { kind: "sample" }),
    async close() {
      await end();
      await Promise.all(ending);
    },
  };
}
