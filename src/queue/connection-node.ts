/**
 * A connection to NATS JetStream, which keeps streams of messages, values by keys and objects (files) on its disk. Once it is open it
 * comes back by itself, however long the server is away.
 */
import { setTimeout } from "node:timers/promises";
import type {
  Consumer,
  ConsumerConfig,
  JetStreamClient,
  JetStreamManager,
  StreamConfig,
} from "@nats-io/jetstream";
import type { KV, KvOptions } from "@nats-io/kv";
import type { ObjectStore, ObjectStoreOptions } from "@nats-io/obj";
import type { NatsConnection } from "@nats-io/transport-node";
import { UsageError } from "../engine/errors.ts";
import { type Link, linkOf, PAUSE } from "./link-node.ts";
import { untilGreeted } from "./greeting-node.ts";
import { queueAddress, type QueueAddress } from "./address.ts";
import { type NatsModules, natsModules } from "./packages-node.ts";

/** An open connection to a queue. What creates something does nothing if the same is already there. */
export interface Queue {
  /** Its address, without passwords. */
  readonly url: string;
  /** The packages, for their enums and functions. */
  readonly modules: NatsModules;
  readonly connection: NatsConnection;
  readonly jetstream: JetStreamClient;
  readonly manager: JetStreamManager;
  /** Creates a stream, or changes the config of the one of its name. */
  readonly createStream: (
    config: Partial<StreamConfig> & { readonly name: string },
  ) => Promise<void>;
  /** Creates a durable pull consumer of a stream, whose messages are acknowledged one by one unless the config says otherwise, or changes the config of the one of its name. */
  readonly createConsumer: (
    stream: string,
    config: Partial<ConsumerConfig> & { readonly durable_name: string },
  ) => Promise<Consumer>;
  /** A bucket of values by keys. */
  readonly keyValue: (bucket: string, options?: Partial<KvOptions>) => Promise<KV>;
  /** A bucket of objects by names. */
  readonly objects: (bucket: string, options?: Partial<ObjectStoreOptions>) => Promise<ObjectStore>;
  /**
   * Repeats a call for as long as the server is away or does not answer. It may have had its effect without the answer having
   * come, so it must be one that can be repeated.
   */
  readonly persist: Link["persist"];
  /** Makes a call once, and says at once so if the server is away. */
  readonly attempt: Link["attempt"];
  readonly isUp: Link["isUp"];
  /** Sends what is left to send if the server is there, and closes. */
  readonly close: () => Promise<void>;
}

export interface QueueOptions {
  /** Told in a sentence that the connection was lost, and that it is back. */
  readonly log?: (text: string) => void;
  /** Milliseconds for the first connection. */
  readonly timeout?: number;
}

/**
 * Connects to a queue.
 *
 * @param url as `queueAddress` reads it
 * @throws UsageError if the client's packages are not installed, nothing answers at the address, access is refused, or the server keeps no
 *   streams
 */
export async function openQueue(url: string, options: QueueOptions = {}): Promise<Queue> {
  const address = queueAddress(url);
  const modules = await natsModules();
  const connection = await connected(address, modules, options.timeout ?? 5000);
  try {
    const manager = await modules.jetstream.jetstreamManager(connection);
    return queueOf(connection, manager, modules, address.shown, options.log);
  } catch (cause) {
    await connection.close();
    if (!(cause instanceof Error && /JetStream/i.test(cause.name + cause.message))) throw cause;
    throw new UsageError(
      `The NATS server at ${address.shown} keeps no streams; start it with JetStream: nats-server --jetstream --store_dir DIR.`,
      { cause },
    );
  }
}

async function connected(
  { servers, shown, encrypted, ...access }: QueueAddress,
  { transport }: NatsModules,
  timeout: number,
): Promise<NatsConnection> {
  try {
    await untilGreeted(servers, timeout);
    return await transport.connect({
      ...access,
      servers: [...servers],
      ...(encrypted && { tls: {} }),
      name: "patchwise",
      timeout,
      maxReconnectAttempts: -1,
      reconnectTimeWait: PAUSE,
      // A server whose machine is gone says nothing: two unanswered pings end the connection.
      pingInterval: 10_000,
    });
  } catch (cause) {
    const { name, message } = cause as Error;
    if (name === "AuthorizationError" || name === "UserAuthenticationExpiredError") {
      throw new UsageError(
        `The queue at ${shown} refuses access; give its user and password, nats://USER:PASSWORD@HOST:PORT, or its token, nats://TOKEN@HOST:PORT.`,
        { cause },
      );
    }
    throw new UsageError(
      `The queue at ${shown} cannot be reached (${message}); check the address, and that a NATS server runs there: nats-server --jetstream --store_dir DIR.`,
      { cause },
    );
  }
}

function queueOf(
  connection: NatsConnection,
  manager: JetStreamManager,
  modules: NatsModules,
  url: string,
  log: QueueOptions["log"],
): Queue {
  const { persist, attempt, isUp } = linkOf(connection, url, (event) => {
    if (event === "lost")
      log?.(`The connection to the queue at ${url} is lost; work goes on when it is back.`);
    else log?.(`The queue at ${url} is back.`);
  });
  const jetstream = modules.jetstream.jetstream(connection);
  const buckets = { kv: new modules.kv.Kvm(connection), obj: new modules.obj.Objm(connection) };
  return {
    url,
    modules,
    connection,
    jetstream,
    manager,
    persist,
    attempt,
    isUp,
    createStream: (config) =>
      persist(async () => {
        const there = await ifFound(manager.streams.info(config.name));
        if (there) await manager.streams.update(config.name, config);
        else await manager.streams.add(config);
      }),
    createConsumer: (stream, given) =>
      persist(async () => {
        const config = { ack_policy: modules.jetstream.AckPolicy.Explicit, ...given };
        const there = await ifFound(manager.consumers.info(stream, config.durable_name));
        if (there) await manager.consumers.update(stream, config.durable_name, config);
        else await manager.consumers.add(stream, config);
        return jetstream.consumers.get(stream, config.durable_name);
      }),
    keyValue: (bucket, options = {}) => persist(() => buckets.kv.create(bucket, { ...options })),
    objects: (bucket, options = {}) => persist(() => buckets.obj.create(bucket, { ...options })),
    async close() {
      if (connection.isClosed()) return;
      // A connection that is being found again has nobody to send the rest to.
      await Promise.race([connection.drain().catch(() => undefined), setTimeout(1000)]);
      await connection.close();
    },
  };
}

/** Undefined for a stream or consumer that does not exist. */
async function ifFound<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (/^(Stream|Consumer)NotFoundError$/.test((error as Error).name)) return undefined;
    throw error;
  }
}
