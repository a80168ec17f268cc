/** Draws for the producers of a queue. */
import { setTimeout } from "node:timers/promises";
import type { JsMsg } from "@nats-io/jetstream";
import { PatchwiseError, quote } from "../../engine/errors.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { isPassing, PAUSE } from "../../queue/link-node.ts";
import { untilAborted } from "../../queue/until-aborted-node.ts";
import { checkedRequest } from "../../pipelines/settings.ts";
import type { Drawer } from "../drawer.ts";
import {
  ACK_WAIT,
  type Board,
  type Job,
  jobSchema,
  kindOf,
  openBoard,
  readMessage,
  resultSubject,
  type Work,
  workSchema,
  workStream,
} from "./board.ts";
import { workerName } from "./producer.ts";

/** Deliveries of a picture after which it is given up: its workers seem to end by it. */
const MOST_DELIVERIES = 50;

export interface WorkerOptions {
  /** The model that it draws with. */
  readonly model: Pick<Job, "model" | "digest" | "version">;
  readonly signal: AbortSignal;
  /** Told of jobs for other models. */
  readonly log: (text: string) => void;
  /** Called after each picture. */
  readonly onDrawn?: () => void;
}

/**
 * Draws what the queue holds for its model, until a signal. Work under way then goes to other workers.
 *
 * @throws PatchwiseError if the queue's streams are gone
 */
export async function serveQueue(
  queue: Queue,
  drawer: Drawer,
  { model, signal, log, onDrawn }: WorkerOptions,
): Promise<void> {
  const board = await openBoard(queue);
  const { createConsumer, connection, persist } = queue;
  const kind = kindOf(model);
  const consumer = await createConsumer(workStream, {
    durable_name: workerName(model),
    filter_subject: `patchwise.draw.${kind}.>`,
    ack_wait: ACK_WAIT * 1e9,
    max_ack_pending: 10_000,
  });
  const ended = new AbortController();
  void watchJobs(board, queue, model, ended.signal, log);
  const underWay = new Set<JsMsg>();
  // The drawing is done by another process, so that these signs of life always come.
  const alive = setInterval(
    () => {
      for (const message of underWay) message.working();
    },
    (ACK_WAIT * 1000) / 4,
  );
  const take = async () => {
    while (!signal.aborted) {
      try {
        const message = await persist(() => consumer.next({ expires: 5000 }), signal);
        if (!message) continue;
        underWay.add(message);
        try {
          if (await answered(message, { queue, board, drawer, signal })) onDrawn?.();
        } finally {
          underWay.delete(message);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (connection.isClosed() || !isPassing(error)) throw error;
        await setTimeout(PAUSE);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: drawer.places }, take));
  } finally {
    clearInterval(alive);
    for (const message of underWay) message.nak();
    ended.abort();
  }
}

/** The fields of a message that an answer to it needs. */
interface Answering {
  readonly queue: Queue;
  readonly board: Board;
  readonly drawer: Drawer;
  readonly signal: AbortSignal;
}

/** Draws the picture of a message unless it is there, and tells its producer. Returns true if it was drawn. */
async function answered(message: JsMsg, of: Answering): Promise<boolean> {
  const { queue, board, signal } = of;
  const { persist } = queue;
  const work = readMessage(workSchema, message.string());
  if (!work) {
    message.term("not a picture of patchwise");
    return false;
  }
  const job = await persist(() => board.jobs.get(work.job), signal);
  const isWanted = job?.operation === "PUT";
  const there = isWanted && (await persist(() => board.pictures.info(work.id), signal));
  const isThere = there && !there.deleted;
  let error: string | undefined;
  let isDrawn = false;
  if (isWanted && !isThere) {
    if (message.info.deliveryCount > MOST_DELIVERIES) {
      error = `It was begun ${MOST_DELIVERIES} times, and each time its worker ended.`;
    } else {
      const drawn = await drawnFile(work, of);
      if (typeof drawn === "string") error = drawn;
      else {
        await persist(() => board.pictures.putBlob({ name: work.id }, drawn), signal);
        isDrawn = true;
      }
    }
  }
  if (isWanted) {
    const result = JSON.stringify({ id: work.id, error });
    await persist(() => queue.jetstream.publish(resultSubject(work.job), result), signal);
  }
  message.ack();
  return isDrawn;
}

/** The file of a picture, or why there is none. */
async function drawnFile(
  { request, by }: Work,
  { drawer, signal }: Answering,
): Promise<Uint8Array | string> {
  try {
    // A worker that ends gives its work back at once.
    return await untilAborted(drawer.draw(checkedRequest(request), by), signal);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof PatchwiseError) return error.message;
    throw error;
  }
}

/** Tells of each job that needs another model than this worker's. */
async function watchJobs(
  { jobs }: Board,
  { persist, connection }: Queue,
  model: WorkerOptions["model"],
  signal: AbortSignal,
  log: (text: string) => void,
): Promise<void> {
  const told = new Set<string>();
  while (!signal.aborted && !connection.isClosed()) {
    try {
      const keys: string[] = [];
      for await (const key of await persist(() => jobs.keys(), signal)) keys.push(key);
      for (const key of keys) {
        if (told.has(key)) continue;
        const entry = await persist(() => jobs.get(key), signal);
        const job = entry ? readMessage(jobSchema, entry.string()) : undefined;
        if (!job || kindOf(job) === kindOf(model)) continue;
        told.add(key);
        log(refusal(job, model));
      }
    } catch {
      // It tells of them when the queue is back.
    }
    await setTimeout(2000, undefined, { signal }).catch(() => {});
  }
}

/** Says why a worker takes no work of a job. */
function refusal(job: Job, own: WorkerOptions["model"]): string {
  const which =
    job.version !== own.version
      ? `${quote(job.model)} as Patchwise ${job.version} draws it, and this worker is Patchwise ${own.version}`
      : job.model === own.model
        ? `${quote(job.model)} with other weights or another config than this worker has`
        : `${quote(job.model)}, and this worker draws with ${quote(own.model)}`;
  return `A job of ${job.pictures} pictures needs ${which}, which takes no work of it; start a worker with the model of the job.`;
}
