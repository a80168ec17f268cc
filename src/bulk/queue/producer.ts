/** Has pictures drawn by the workers of a queue. */
import { randomBytes } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { Consumer } from "@nats-io/jetstream";
import { PatchwiseError, UsageError } from "../../engine/errors.ts";
import { turns } from "../../engine/turns.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { isPassing, PAUSE } from "../../queue/link-node.ts";
import type { Drawer } from "../drawer.ts";
import {
  type Board,
  type Job,
  kindOf,
  openBoard,
  pictureId,
  readMessage,
  resultSchema,
  resultStream,
  resultSubject,
  type Work,
  workStream,
  workSubject,
} from "./board.ts";

/** Someone who waits for a picture. */
interface Waiting {
  readonly done: (file: Uint8Array) => void;
  readonly fail: (error: Error) => void;
}

/** Messages that are published before their acknowledgements have come. */
const PUBLISHED_AT_ONCE = 64;

/**
 * A drawer whose pictures are drawn by workers. If it is closed before all are there, the workers go on, and another one with the same
 * `job` finds what they have drawn.
 *
 * @param job the name of the job, of letters and digits
 * @throws UsageError if the queue refuses what is needed
 */
export async function queueDrawer(queue: Queue, job: string, about: Job): Promise<Drawer> {
  const board = await openBoard(queue);
  const { jetstream, manager, persist } = queue;
  const subject = workSubject(kindOf(about), job);
  // What an earlier run asked for and nobody has begun may have changed.
  await persist(() => manager.streams.purge(workStream, { filter: `patchwise.draw.*.${job}` }));
  await persist(() => board.jobs.put(job, JSON.stringify(about)));
  const results = await queue.createConsumer(resultStream, {
    durable_name: `collect-${job}`,
    filter_subject: resultSubject(job),
  });
  const waiting = new Map<string, Waiting[]>();
  const found = await drawnBefore(results, queue);
  const closed = new AbortController();
  const run = randomBytes(4).toString("hex");
  const inTurn = limited(PUBLISHED_AT_ONCE);

  const settle = (id: string, settled: (each: Waiting) => void) => {
    for (const each of waiting.get(id) ?? []) settled(each);
    waiting.delete(id);
  };
  const collect = async (id: string) => {
    const file = await persist(() => board.pictures.getBlob(id), closed.signal);
    if (!file) return false;
    settle(id, ({ done }) => done(new Uint8Array(file)));
    await persist(() => board.pictures.delete(id), closed.signal);
    return true;
  };
  const collecting = collectResults(results, queue, closed.signal, async ({ id, error }) => {
    if (!waiting.has(id)) return;
    if (error !== undefined) settle(id, ({ fail }) => fail(new PatchwiseError(error)));
    else await collect(id);
  });
  // Whoever waits learns why no more pictures come.
  collecting.catch((error: Error) => {
    for (const id of waiting.keys()) settle(id, ({ fail }) => fail(error));
  });

  const publish = async (work: Work) => {
    const text = JSON.stringify(work);
    const most = queue.connection.info?.max_payload ?? 2 ** 20;
    if (Buffer.byteLength(text) > most) {
      throw new UsageError(
        `Its settings take ${Buffer.byteLength(text)} bytes, more than the ${most} that the queue takes in a message; give a shorter prompt.`,
      );
    }
    // Published again after a lost answer, it is the same message.
    const msgID = `${run}.${work.id}`;
    await persist(() => jetstream.publish(subject, text, { msgID }), closed.signal);
  };
  return {
    places: Infinity,
    draw: (request, by) =>
      new Promise((done, fail) => {
        const id = pictureId(job, request, by);
        const others = waiting.get(id);
        if (others) return void others.push({ done, fail });
        waiting.set(id, [{ done, fail }]);
        const work: Work = { job, id, request: { ...request }, by };
        const begin = async () => {
          if (!(found.has(id) && (await collect(id)))) await publish(work);
        };
        inTurn(begin).catch((error: Error) => settle(id, (each) => each.fail(error)));
      }),
    async close() {
      const isOver = waiting.size === 0;
      closed.abort();
      await collecting.catch(() => {});
      if (isOver && !queue.connection.isClosed()) await forget(board, queue, job);
    },
  };
}

/** True if a worker of the job's model asks for work now. */
export async function hasWorkers({ manager, persist }: Queue, about: Job): Promise<boolean> {
  try {
    const { num_waiting, num_ack_pending } = await persist(() =>
      manager.consumers.info(workStream, workerName(about)),
    );
    return num_waiting + num_ack_pending > 0;
  } catch {
    return false;
  }
}

/** The name that all workers of a model share. */
export function workerName(about: Pick<Job, "digest" | "version">): string {
  return `workers-${kindOf(about)}`;
}

/** The ids of pictures that were drawn for an earlier run that did not collect them. */
async function drawnBefore(results: Consumer, { persist }: Queue): Promise<ReadonlySet<string>> {
  const ids = new Set<string>();
  for (;;) {
    const message = await persist(() => results.next({ expires: 1000 }));
    if (!message) return ids;
    const result = readMessage(resultSchema, message.string());
    if (result && result.error === undefined) ids.add(result.id);
    message.ack();
  }
}

/** Hands results to `take`, in order, until a signal. */
async function collectResults(
  results: Consumer,
  { connection, persist }: Queue,
  signal: AbortSignal,
  take: (result: { id: string; error?: string | undefined }) => Promise<void>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const messages = await persist(
        () => results.fetch({ max_messages: 100, expires: 2000 }),
        signal,
      );
      const stop = () => void messages.close();
      signal.addEventListener("abort", stop);
      for await (const message of messages) {
        const result = readMessage(resultSchema, message.string());
        if (result) await take(result);
        message.ack();
        if (signal.aborted) return;
      }
      signal.removeEventListener("abort", stop);
    } catch (error) {
      if (signal.aborted) return;
      // The server went away in the middle of a batch; what was not acknowledged comes again.
      if (connection.isClosed() || !isPassing(error)) throw error;
      await setTimeout(PAUSE);
    }
  }
}

/** Removes what is left of a job that is over. */
async function forget(board: Board, { manager }: Queue, job: string): Promise<void> {
  const leave = [
    board.jobs.purge(job),
    manager.consumers.delete(resultStream, `collect-${job}`),
    manager.streams.purge(resultStream, { filter: resultSubject(job) }),
    // Work whose acknowledgement was lost with the server.
    manager.streams.purge(workStream, { filter: `patchwise.draw.*.${job}` }),
  ];
  await Promise.allSettled(leave);
}

/** Runs at most so many calls at the same time. */
function limited(most: number): <T>(call: () => Promise<T>) => Promise<T> {
  const lanes = Array.from({ length: most }, () => turns());
  let next = 0;
  return (call) => lanes[next++ % most]!(call);
}
