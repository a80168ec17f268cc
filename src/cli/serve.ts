/** patchwise serve: draws for other programs, over HTTP. */
import type { Command } from "commander";
import { UsageError } from "../engine/errors.ts";
import type { SharedQueue } from "../server/server.ts";
import { numberOption } from "./options.ts";
import {
  addServerOptions,
  type CommonServerOptions,
  serveUntilSignal,
  wholeOption,
} from "./server-options.ts";

interface ServeOptions extends CommonServerOptions {
  readonly host: string;
  readonly port: number;
  readonly token?: string;
  readonly queue?: string;
  readonly lease?: number;
}

/** Seconds. */
const LEASE = 10;

export function addServe(program: Command): void {
  const command = program
    .command("serve")
    .summary("draw for other programs, over HTTP")
    .description(
      "Serves models over HTTP: its own interface of jobs (/api, described by /openapi.json), OpenAI's for images (/v1), and " +
        "that of AUTOMATIC1111's web UI (/sdapi/v1). Jobs and their pictures are kept in a folder, and survive a restart. With " +
        "--queue several servers, on one machine or many, share the jobs: each takes requests for all, and what one that is killed was " +
        "drawing another one draws.",
    );
  addServerOptions(command)
    .option(
      "--host <address>",
      "address to listen on; others than 127.0.0.1 need a token",
      "127.0.0.1",
    )
    .option("--port <n>", "port to listen on", wholeOption("--port", 0), 7860)
    .option(
      "--token <text>",
      "what requests must send as Authorization: Bearer TOKEN; better given as PATCHWISE_TOKEN, which other users of the machine cannot see",
    )
    .option(
      "--queue <url>",
      "NATS server with JetStream, such as nats://127.0.0.1:4222, whose jobs this server shares with others; better given as PATCHWISE_QUEUE if it holds a password",
    )
    .option(
      "--lease <s>",
      `with --queue: seconds after which a job of a server that says nothing is drawn by another one (default: ${LEASE})`,
      numberOption("--lease"),
    )
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const { host, port, token = process.env["PATCHWISE_TOKEN"] } = options;
  const { queue = process.env["PATCHWISE_QUEUE"], lease } = options;
  const shared = queue === undefined ? undefined : sharedQueue(queue, lease);
  if (lease !== undefined && !shared) {
    throw new UsageError("--lease is for servers that share a queue; give --queue, too.");
  }
  await serveUntilSignal(
    options,
    { host, port, token, shared },
    (url) => `Serving ${options.model.join(", ")} at ${url}`,
  );
}

/** @throws UsageError for a number of jobs, which another option is for, and a lease that is too short for the pauses of a busy server */
function sharedQueue(url: string, lease = LEASE): SharedQueue {
  if (/^\d+$/.test(url)) {
    throw new UsageError(
      `--queue is the address of a queue, such as nats://127.0.0.1:4222; for the number of jobs give --queue-limit ${url}.`,
    );
  }
  if (lease >= 1 && lease <= 3600) return { url, lease: 1000 * lease };
  throw new UsageError(`--lease must be from 1 to 3600 seconds, got ${lease}.`);
}
