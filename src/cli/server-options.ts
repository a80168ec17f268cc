/** Options of the commands that run a server, and its life from its start to a signal. */
import { availableParallelism } from "node:os";
import type { Command } from "commander";
import { UsageError } from "../engine/errors.ts";
import { defaultLimits } from "../server/limits.ts";
import { type ServerOptions, startServer } from "../server/server.ts";
import { numberOption } from "./options.ts";
import { writeLine } from "./terminal.ts";
import { version } from "./version.ts";

/** The values of the options below. */
export interface CommonServerOptions {
  readonly model: readonly string[];
  readonly loras?: string;
  readonly output: string;
  readonly processes: number;
  readonly batch: number;
  readonly memory?: number;
  readonly queueLimit: number;
  readonly grace: number;
}

/** Adds the options of models, jobs and their limits. */
export function addServerOptions(command: Command): Command {
  return command
    .option(
      "--model <name|dir|file|id...>",
      "models that requests may name, the first one if they name none",
      ["emoji"],
    )
    .option("--loras <dir>", "folder whose entries are LoRAs that requests may name")
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
      "--queue-limit <n>",
      "jobs that wait or are drawn, beyond which requests are refused for a while",
      wholeOption("--queue-limit"),
      defaultLimits.queue,
    )
    .option(
      "--grace <s>",
      "seconds that running jobs have to finish after SIGTERM or Ctrl-C",
      numberOption("--grace"),
      30,
    );
}

/** A parser of whole numbers of at least `least`. */
export function wholeOption(name: string, least = 1): (text: string) => number {
  const parse = numberOption(name);
  return (text) => {
    const value = parse(text);
    if (Number.isInteger(value) && value >= least) return value;
    throw new UsageError(`${name} must be a whole number of at least ${least}, got ${text}.`);
  };
}

/**
 * Runs a server until a signal ends it.
 *
 * @param say the line for when it listens at an address
 */
export async function serveUntilSignal(
  given: CommonServerOptions,
  place: Pick<ServerOptions, "host" | "port" | "token" | "page" | "shared">,
  say: (url: string) => string,
): Promise<void> {
  const {
    memory,
    grace,
    queueLimit: queue,
    model: models,
    loras,
    output,
    processes,
    batch,
  } = given;
  const server = await startServer({
    ...place,
    models,
    loras,
    output,
    processes,
    batch,
    memory: memory === undefined ? undefined : memory * 2 ** 30,
    limits: { queue },
    version,
    log: (text) => writeLine(process.stderr, text),
  });
  writeLine(
    process.stderr,
    `${say(server.url)} on ${availableParallelism()} cores; pictures are kept in ${place.shared ? "the queue" : output}. Ctrl-C ends.`,
  );
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      // A second signal ends the process at once.
      process.once(signal, () => resolve());
    }
  });
  writeLine(
    process.stderr,
    place.shared
      ? "Ending: jobs that are drawn are finished or given back to the queue."
      : "Ending: jobs that are drawn are finished, and those that wait are kept.",
  );
  await server.close(grace * 1000);
}
