#!/usr/bin/env node
/**
 * What a person types. Exit codes: 0 done, 1 failed or out of tolerance, 2 bad usage.
 */
import { Command, CommanderError } from "commander";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { addCompare } from "./compare.ts";
import { addExport } from "./export.ts";
import { addGenerate } from "./generate.ts";
import { addInfo } from "./info.ts";
import { addTrain } from "./train.ts";
import { addVerify } from "./verify.ts";
import { description, version } from "./version.ts";

const program = new Command("patchwise")
  .description(description)
  .version(version, "-V, --version", "print the version")
  .helpOption("-h, --help", "print this help")
  .showSuggestionAfterError()
  // Errors are thrown and reported below, in one place and one form.
  .exitOverride()
  .configureOutput({ outputError: () => {} });
addCompare(program);
addExport(program);
addGenerate(program);
addInfo(program);
addTrain(program);
addVerify(program);

/** Tells an error and gives its exit code. */
function report(error: unknown, asJson: boolean): number {
  // A file that is not what it should be is bad input, as a wrong option is.
  const usage =
    error instanceof UsageError || error instanceof FormatError || error instanceof CommanderError;
  if (error instanceof CommanderError && error.code === "commander.help") return 2;
  const { message, stack } = error as Error;
  const text = error instanceof CommanderError ? sentence(error) : message;
  // Anything else than a PatchwiseError is a bug, which its stack helps to find.
  const known = usage || error instanceof PatchwiseError;
  process.stderr.write(`patchwise: ${known ? text : stack}\n`);
  if (asJson) process.stdout.write(`${JSON.stringify({ ok: false, error: text })}\n`);
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

// A reader that has seen enough, such as head, closes the pipe.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  const done = error instanceof CommanderError && error.exitCode === 0;
  if (!done) process.exitCode = report(error, process.argv.includes("--json"));
}
