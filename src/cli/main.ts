#!/usr/bin/env node
/** The command line. Exit codes: 0 for success, 1 for failures and errors out of tolerance, 2 for wrong usage. */
import { Command, CommanderError } from "commander";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { becomeQuiet, isNoisy, runQuietly } from "./quiet-process.ts";
import { description, version } from "./version.ts";
import { writeJsonLine, writeLine, writeText } from "./terminal.ts";

if (!becomeQuiet() && isNoisy(process.argv.slice(2))) await runQuietly();

const program = new Command("patchwise")
  .description(description)
  .version(version, "-V, --version", "print the version")
  .helpOption("-h, --help", "print this help")
  .showSuggestionAfterError()
  // Errors are thrown and reported below, in one place and one form.
  .exitOverride()
  .configureOutput({ outputError: () => {} });

/** ONNX Runtime reads the command line of its process by a recursion that ends Node beyond about 28,000 bytes. */
const MOST_BYTES = 20_000;
program.hook("preAction", () => {
  const bytes = Buffer.byteLength([...process.execArgv, ...process.argv].join(" "));
  if (process.platform !== "linux" || bytes <= MOST_BYTES) return;
  throw new UsageError(
    `The command line has ${bytes} bytes, more than the ${MOST_BYTES} that ONNX Runtime can take; give a shorter prompt, or fewer files.`,
  );
});

/** Each command is loaded when it is asked for, since what the others import takes longer than a small picture. */
const commands: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  compare: async () => (await import("./compare.ts")).addCompare,
  evaluate: async () => (await import("./evaluate.ts")).addEvaluate,
  export: async () => (await import("./export.ts")).addExport,
  generate: async () => (await import("./generate.ts")).addGenerate,
  info: async () => (await import("./info.ts")).addInfo,
  plan: async () => (await import("./plan.ts")).addPlan,
  quantize: async () => (await import("./quantize.ts")).addQuantize,
  serve: async () => (await import("./serve.ts")).addServe,
  studio: async () => (await import("./studio.ts")).addStudio,
  train: async () => (await import("./train.ts")).addTrain,
  verify: async () => (await import("./verify.ts")).addVerify,
};
const [asked = ""] = process.argv.slice(2);
const wanted = Object.hasOwn(commands, asked) ? [commands[asked]!] : Object.values(commands);
for (const load of wanted) (await load())(program);

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

// A reader that goes away, such as head or a closed terminal, must not end the work.
process.stderr.on("error", () => {});
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE" && error.code !== "EIO") throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  const done = error instanceof CommanderError && error.exitCode === 0;
  if (!done) process.exitCode = report(error, process.argv.includes("--json"));
}
