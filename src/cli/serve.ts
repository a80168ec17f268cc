/** patchwise serve: draws for other programs, over HTTP. */
import { availableParallelism } from "node:os";
import type { Command } from "commander";
import { UsageError } from "../engine/errors.ts";
import { defaultLimits } from "../server/limits.ts";
import { startServer } from "../server/server.ts";
import { numberOption } from "./options.ts";
import { writeLine } from "./terminal.ts";
import { version } from "./version.ts";

interface ServeOptions {
  readonly model: readonly string[];
  readonly loras?: string;
  readonly host: string;
  readonly port: number;
  readonly token?: string;
  readonly output: string;
  readonly processes: number;
  readonly batch: number;
  readonly memory?: number;
  readonly queue: number;
  readonly grace: number;
}

export function addServe(program: Command): void {
  program
    .command("serve")
    .summary("draw for other programs, over HTTP")
    .description(
      "Serves models over HTTP: its own interface of jobs (/api, described by /openapi.json), OpenAI's for images (/v1), and " +
        "that of AUTOMATIC1111's web UI (/sdapi/v1). Jobs and their pictures are kept in a folder, and survive a restart.",
    )
    .option(
      "--model <name|dir|file|id...>",
      "models that requests may name, the first one if they name none",
      ["emoji"],
    )
    .option("--loras <dir>", "folder whose entries are LoRAs that requests may name")
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
    .option("--output <dir>", "folder of jobs and pictures", "served")
    .option(
      "--processes <n>",
      "models that are drawn with at the same time",
      wholeOption("--processes"),
      2,
    )
    .option(
      "--batch <n>",
      "pictures that are drawn at the same time with one model",
      wholeOption("--batch"),
      16,
    )
    .option("--memory <GiB>", "memory limit of each of these processes", numberOption("--memory"))
    .option(
      "--queue <n>",
      "jobs that wait or are drawn, beyond which requests are refused for a while",
      wholeOption("--queue"),
      defaultLimits.queue,
    )
    .option(
      "--grace <s>",
      "seconds that running jobs have to finish after SIGTERM or Ctrl-C",
      numberOption("--grace"),
      30,
    )
    .action(serve);
}

function wholeOption(name: string, least = 1): (text: string) => number {
  const parse = numberOption(name);
  return (text) => {
    const value = parse(text);
    if (Number.isInteger(value) && value >= least) return value;
    throw new UsageError(`${name} must be a whole number of at least ${least}, got ${text}.`);
  };
}

async function serve(options: ServeOptions): Promise<void> {
  const { memory, grace, queue, model: models } = options;
  const server = await startServer({
    ...options,
    models,
    token: options.token ?? process.env["PATCHWISE_TOKEN"],
    memory: memory === undefined ? undefined : memory * 2 ** 30,
    limits: { queue },
    version,
    log: (text) => writeLine(process.stderr, text),
  });
  writeLine(
    process.stderr,
    `Serving ${models.join(", ")} at ${server.url} on ${availableParallelism()} cores; pictures are kept in ${options.output}. Ctrl-C ends.`,
  );
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      // A second signal ends the process at once.
      process.once(signal, () => resolve());
    }
  });
  writeLine(
    process.stderr,
    "Ending: jobs that are drawn are finished, and those that wait are kept.",
  );
  await server.close(grace * 1000);
}
