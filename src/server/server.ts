/** The server as a whole: opens models and jobs, listens, and ends in good order. */
import type { AddressInfo } from "node:net";
import type { Server } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import { PatchwiseError, UsageError } from "../engine/errors.ts";
import { closingOnFailure } from "../weights/sources/closing.ts";
import { describeSystemError } from "../weights/sources/system-error-node.ts";
import { accessTo } from "./access.ts";
import { serverApp } from "./app.ts";
import { digestOf } from "../pipelines/open/model-digest-node.ts";
import { type Catalogue, openCatalogue } from "./catalogue.ts";
import { type JobStore, openJobStore } from "./job-store.ts";
import { openJobTable } from "./job-table.ts";
import type { JobTableOptions } from "./jobs.ts";
import { defaultLimits } from "./limits.ts";
import { requestCounter } from "./metrics.ts";
import { pageRoutes } from "./page.ts";
import { openSharedTable } from "./shared/table.ts";
import type { Limits } from "./wire.ts";

export interface ServerOptions {
  /** Names, folders or files of models, as `openPipeline` takes them. */
  readonly models: readonly string[];
  /** The folder whose entries are LoRAs that requests may name; none unless given. */
  readonly loras?: string | undefined;
  /** The folder of jobs and their pictures. */
  readonly output: string;
  /** The address to listen on; any but a loopback address needs a token. */
  readonly host: string;
  /** 0 for any free port. */
  readonly port: number;
  readonly token?: string | undefined;
  /** Processes that draw at the same time, each with one model. */
  readonly processes: number;
  /** Pictures that a process draws at the same time. */
  readonly batch: number;
  /** Bytes that each of these processes may take; the machine's available memory unless given. */
  readonly memory?: number | undefined;
  readonly limits?: Partial<Limits> | undefined;
  /** A queue of jobs that this server shares with others; it has its own in `output` unless given. */
  readonly shared?: SharedQueue | undefined;
  /** True if the studio's page is served too, at "/"; false by default. */
  readonly page?: boolean | undefined;
  /** What pictures record. */
  readonly version: string;
  /** Called with sentences for the operator. */
  readonly log: (text: string) => void;
}

export interface SharedQueue {
  /** The address of NATS servers, such as "nats://127.0.0.1:4222". */
  readonly url: string;
  /** Milliseconds after which a job of a server that says nothing is drawn by another one. */
  readonly lease: number;
}

export interface RunningServer {
  /** Such as "http://127.0.0.1:7860". */
  readonly url: string;
  /** Takes no more jobs, lets those that are drawn end within a time in milliseconds, keeps those that wait, and stops listening. */
  close(graceMs: number): Promise<void>;
}

/**
 * Starts a server.
 *
 * @throws UsageError if a model is missing, the address needs a token, or the port is taken
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host, port, version, log } = options;
  const access = accessTo(host, options.token);
  const limits = { ...defaultLimits, ...options.limits };
  const catalogue = await openCatalogue(options.models, options.loras);
  const store = await closingOnFailure<JobStore>([catalogue], () => openJobStore(options.output));
  const requests = requestCounter();
  let answer: (request: Request, env: object) => Response | Promise<Response> = () =>
    new Response("The server is starting.", { status: 503, headers: { "Retry-After": "1" } });
  const server = createAdaptorServer({ fetch: (request, env) => answer(request, env) }) as Server;
  const closeAll = async () => {
    await closed(server);
    requests.close();
    await store.close();
    await catalogue.close();
  };
  try {
    await listening(server, host, port);
    const table: JobTableOptions = {
      store,
      queue: limits.queue,
      processes: options.processes,
      batch: options.batch,
      memory: options.memory,
      version,
      locate: async ({ model, loras }) => ({
        source: catalogue.model(model).source,
        loras: await catalogue.loras(loras),
      }),
      publish: (name, folder) => catalogue.add(name, folder),
      withdraw: (name) => catalogue.remove(name),
      knows: (name) => catalogue.models.some((each) => each.name === name),
      log,
    };
    const jobs = options.shared
      ? await openSharedTable({ ...table, ...options.shared, digests: await digestsOf(catalogue) })
      : await openJobTable(table);
    const { page = false } = options;
    const app = serverApp({ catalogue, jobs, limits, version, access, requests, log, page });
    answer = (request, env) => app.fetch(request, env);
    const { port: taken } = server.address() as AddressInfo;
    return {
      url: `http://${host.includes(":") ? `[${host}]` : host}:${taken}`,
      async close(graceMs) {
        await jobs.close(graceMs);
        await closeAll();
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** What the pictures of each model depend on: all of its weights are read. */
async function digestsOf({ models }: Catalogue): Promise<ReadonlyMap<string, string>> {
  const digests = new Map<string, string>();
  for (const { name, model } of models) digests.set(name, await digestOf(model));
  return digests;
}

/** Serves the studio's page alone on 127.0.0.1; `port` 0 for any free one. @throws UsageError if the port is taken */
export async function startPage(
  port: number,
): Promise<{ readonly url: string; close(): Promise<void> }> {
  const page = pageRoutes({ jobs: false });
  const server = createAdaptorServer({ fetch: page.fetch }) as Server;
  await listening(server, "127.0.0.1", port);
  const { port: taken } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${taken}`, close: () => closed(server) };
}

/** Milliseconds in which last answers go out, before connections that are still open are cut. */
const LAST_ANSWERS = 500;

function closed(server: Server): Promise<void> {
  const cut = setTimeout(() => server.closeAllConnections(), LAST_ANSWERS);
  return new Promise((resolve) => {
    server.close(() => {
      clearTimeout(cut);
      resolve();
    });
    server.closeIdleConnections();
  });
}

function listening(server: Server, host: string, port: number): Promise<void> {
  if (!Number.isSafeInteger(port) || port < 0 || port > 65_535) {
    throw new UsageError(`The port is ${port}; give a whole number from 0 to 65535.`);
  }
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const message = `Cannot listen on ${host}, port ${port}: ${error.code === "EADDRINUSE" ? "another program does" : describeSystemError(error)}; give another --port.`;
      reject(
        error.code === "EADDRINUSE"
          ? new UsageError(message, { cause: error })
          : new PatchwiseError(message, { cause: error }),
      );
    });
    server.listen(port, host, resolve);
  });
}
