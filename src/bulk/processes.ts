/** Several processes that draw, each with a share of the machine's cores. */
import { availableParallelism } from "node:os";
import { DeviceError } from "../engine/errors.ts";
import { revive } from "../engine/runtime/worker-protocol.ts";
import type { OpenPipelineOptions } from "../pipelines/open/open-node.ts";
import { type Child, startChild } from "../engine/runtime/child-node.ts";
import type { Drawer } from "./drawer.ts";
import type { FromDrawing, ToDrawing } from "./drawing-messages.ts";

/** A line that a process draws. */
interface Drawing {
  readonly message: Extract<ToDrawing, { kind: "draw" }>;
  readonly done: (file: Uint8Array) => void;
  readonly fail: (error: Error) => void;
  /** True once a process has ended while it drew this line. */
  retried: boolean;
}

interface Process {
  child: Child<ToDrawing>;
  readonly drawings: Map<number, Drawing>;
}

/**
 * Starts processes that draw with a model. One that ends by itself, perhaps for want of memory, is started again, and its lines are drawn
 * once more.
 *
 * @param places lines that each process draws at the same time
 */
export function processesDrawer(
  count: number,
  places: number,
  source: string,
  options: OpenPipelineOptions,
): Drawer {
  const threads = Math.max(1, Math.floor(availableParallelism() / count));
  let nextId = 0;

  const start = (drawings: Map<number, Drawing>): Child<ToDrawing> => {
    const child = startChild<ToDrawing>(
      "bulk/drawing-process",
      (message) => heard(drawings, message as FromDrawing),
      (how) => restart(drawings, how),
    );
    child.send({ kind: "open", source, options: { ...options, threads } });
    return child;
  };
  const processes: Process[] = Array.from({ length: count }, () => {
    const drawings = new Map<number, Drawing>();
    return { child: start(drawings), drawings };
  });
  const restart = (drawings: Map<number, Drawing>, how: string) => {
    const crashed = processes.find((each) => each.drawings === drawings)!;
    for (const [id, { retried, fail }] of drawings) {
      if (!retried) continue;
      drawings.delete(id);
      fail(
        new DeviceError(
          `The process that drew it ended by itself twice (${how}), perhaps for want of memory; draw fewer at a time with --batch.`,
        ),
      );
    }
    crashed.child = start(drawings);
    for (const drawing of drawings.values()) {
      drawing.retried = true;
      crashed.child.send(drawing.message);
    }
  };
  return {
    places: count * places,
    draw: (request, by) =>
      new Promise((done, fail) => {
        const message = { kind: "draw", id: nextId++, request, by } as const;
        const [idlest] = processes.toSorted((a, b) => a.drawings.size - b.drawings.size);
        idlest!.drawings.set(message.id, { message, done, fail, retried: false });
        idlest!.child.send(message);
      }),
    close: async () => {
      await Promise.all(processes.map(({ child }) => child.end()));
    },
  };
}

function heard(drawings: Map<number, Drawing>, message: FromDrawing): void {
  const drawing = drawings.get(message.id);
  drawings.delete(message.id);
  if (message.kind === "drawn") drawing?.done(message.file);
  else drawing?.fail(revive(message.failure));
}
