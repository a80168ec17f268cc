#!/usr/bin/env node
/** The command line. Exit codes: 0 for success, 1 for failures and errors out of tolerance, 2 for wrong usage. */
import { CommanderError } from "commander";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { commandLine } from "./command-line.ts";
import { becomeQuiet, isNoisy, runQuietly } from "./quiet-process.ts";
import { writeJsonLine, writeLine, writeText } from "./terminal.ts";

if (!becomeQuiet() && isNoisy(process.argv.slice(2))) await runQuietly();

const program = await commandLine(process.argv[2]);

/** Prints an error and returns its exit code. */
function report(error: unknown, asJson: boolean): number {
  // An invalid file is wrong usage, like a wrong option.
  const usage =
    error instanceof UsageError || error instanceof FormatError || error instanceof CommanderError;
  if (error instanceof CommanderError && error.code === "commander.help") return 2;
  const { message, stack } = error as Error;
  const text = error instanceof CommanderError ? sentence(error) : message;
  // Any other error is a bug, for which the stack is needed.
  const known = usage || error instanceof PatchwiseError;
  if (known) writeLine(process.stderr, `patchwise: ${text}`);
  else writeText(process.stderr, `patchwise: ${stack}\n`);
  if (asJson) writeJsonLine(process.stdout, { ok: false, error: text });
  return usage ? 2 : 1;
}

/** Commander puts its suggestion on a second line. */
function sentence({ message }: CommanderError): string {
  const text = message
    .replace(/^error: /, "")
    .replaceAll("\n", " ")
    .replace("(Did", "(did");
  const command = program.commands.find((each) => each.name() === process.argv[2]);
  return `${text.replace(/\.$/, "")}; see patchwise ${command ? `${command.name()} ` : ""}--help.`;
}

/** Ranks of a training are started with the same command line, so one of them says what is wrong with it. */
async function isSaidByOtherRank(error: unknown): Promise<boolean> {
  if (!(error instanceof CommanderError) || process.argv[2] !== "train") return false;
  return (await import("./ranks.ts")).isSaidByOther();
}

// A reader that goes away, such as head or a closed terminal, must not end the work.
process.stderr.on("error", () => {});
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE" && error.code !== "EIO") throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  const done = error instanceof CommanderError && error.exitCode === 0;
  if (!done && (await isSaidByOtherRank(error))) process.exitCode = 2;
  else if (!done) process.exitCode = report(error, process.argv.includes("--json"));
}
