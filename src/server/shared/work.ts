/**
 * The jobs that wait or are drawn, as a stream of work: each is delivered to one server that has its model, and to another one if that
 * server says nothing for the time of the lease. A job leaves the stream once it is over, so the stream's size is the queue's.
 */
import { setTimeout } from "node:timers/promises";
import type { Consumer, JsMsg } from "@nats-io/jetstream";
import { UsageError } from "../../engine/errors.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { isFull, isOutdated } from "../../queue/link-node.ts";
import { workConsumer, workStream, workSubject, workSubjects } from "./names.ts";
import type { Call } from "./store.ts";

/** A job that this server was given. */
export interface Delivery {
  readonly id: string;
  /** How often the job was delivered, this time included. */
  readonly count: number;
  /** Keeps the job for the time of another lease. */
  keep(): void;
  /** Takes the job out of the queue. */
  done(): void;
  /** Lets another server have the job, or this one again, after a time in milliseconds. */
  giveBack(ms?: number): void;
}

export interface Work {
  /** Milliseconds for which a server has a job without saying anything. */
  readonly lease: number;
  /** Puts a job into the queue; returns false if that has as many as it takes. A job that is there is not put in again. */
  send(model: string, id: string, call: Call): Promise<boolean>;
  remove(model: string, id: string, call: Call): Promise<void>;
  /** Jobs in the queue. */
  size(call: Call): Promise<number>;
  /**
   * Takes jobs of models, one at a time each, for as long as no signal comes.
   *
   * @param wanted resolves when there is room for another job
   * @returns when all models are waited for; `ended` resolves when no more will be delivered
   * @throws UsageError if the other servers of the queue have another lease
   */
  take(
    models: readonly string[],
    wanted: () => Promise<void>,
    received: (delivery: Delivery) => Promise<void>,
    signal: AbortSignal,
  ): Promise<{ readonly ended: Promise<unknown> }>;
}

export interface WorkOptions {
  /** Milliseconds. */
  readonly lease: number;
  /** Jobs that wait or are drawn. */
  readonly limit: number;
  readonly log: (text: string) => void;
}

/** Milliseconds for which a server asks for a job before it asks again. */
const ASKS = 1000;

export async function openWork(queue: Queue, { lease, limit, log }: WorkOptions): Promise<Work> {
  const { streams } = queue.manager;
  const { StorageType, RetentionPolicy, DiscardPolicy } = queue.modules.jetstream;
  const before = await queue.persist(() => streams.info(workStream)).catch(() => undefined);
  const held = before?.state.messages ?? 0;
  if (before && before.config.max_msgs !== limit) {
    log(
      `The queue took ${before.config.max_msgs} jobs, and takes ${limit} now for all of its servers.`,
    );
  }
  await queue.createStream({
    name: workStream,
    subjects: [workSubjects],
    storage: StorageType.File,
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.New,
    // A stream that has more than it may have loses the oldest.
    max_msgs: Math.max(limit, held),
  });
  const size = (call: Call) => call(async () => (await streams.info(workStream)).state.messages);
  return {
    lease,
    size,
    send: (model, id, call) =>
      call(async () => {
        try {
          const expect = { lastSubjectSequence: 0 };
          await queue.jetstream.publish(workSubject(model, id), "", { expect });
          return true;
        } catch (error) {
          if (isOutdated(error)) return true;
          if (isFull(error)) return false;
          throw error;
        }
      }),
    remove: (model, id, call) =>
      call(async () => void (await streams.purge(workStream, { filter: workSubject(model, id) }))),
    async take(models, wanted, received, signal) {
      const consumers = await Promise.all(models.map((model) => consumerOf(queue, model, lease)));
      const ended = consumers.map((each) => taking(each, wanted, received, signal));
      return { ended: Promise.all(ended) };
    },
  };
}

async function consumerOf(queue: Queue, model: string, lease: number): Promise<Consumer> {
  const { AckPolicy } = queue.modules.jetstream;
  const name = workConsumer(model);
  const ack_wait = lease * 1e6;
  const there = await queue
    .persist(() => queue.manager.consumers.info(workStream, name))
    .catch(() => undefined);
  // A server that waits for work has asked for it; without any, the lease may be changed.
  if (
    there &&
    there.config.ack_wait !== ack_wait &&
    there.num_waiting + there.num_ack_pending > 0
  ) {
    const others = (there.config.ack_wait ?? 0) / 1e9;
    throw new UsageError(
      `The other servers of the queue at ${queue.url} have a lease of ${others} s, and this one ${lease / 1000} s; give --lease ${others}.`,
    );
  }
  return queue.createConsumer(workStream, {
    durable_name: name,
    filter_subject: workSubject(model),
    ack_policy: AckPolicy.Explicit,
    ack_wait,
    max_deliver: -1,
  });
}

async function taking(
  consumer: Consumer,
  wanted: () => Promise<void>,
  received: (delivery: Delivery) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await wanted();
    if (signal.aborted) return;
    const message = await consumer.next({ expires: ASKS }).catch(async () => {
      // The server is away; what it had delivered it delivers again after the lease.
      await setTimeout(500);
    });
    if (message && signal.aborted) message.nak();
    else if (message) await received(deliveryOf(message));
  }
}

function deliveryOf(message: JsMsg): Delivery {
  return {
    id: message.subject.split(".").at(-1)!,
    count: message.info.deliveryCount,
    keep: () => message.working(),
    done: () => message.ack(),
    giveBack: (ms) => message.nak(ms),
  };
}
