/** All commands with their arguments and options, as commander parses them. */
import { Command } from "commander";
import { UsageError } from "../engine/errors.ts";
import { description, version } from "./version.ts";

/** ONNX Runtime reads the command line of its process by a recursion that ends Node beyond about 28,000 bytes. */
const MOST_BYTES = 20_000;

/** Each command is loaded when it is asked for, since what the others import takes longer than a small picture. */
const commands: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  compare: async () => (await import("./compare.ts")).addCompare,
  "draw-many": async () => (await import("./draw-many.ts")).addDrawMany,
  "draw-worker": async () => (await import("./draw-worker.ts")).addDrawWorker,
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

/**
 * The command line, which throws a `CommanderError` for what it cannot parse.
 *
 * @param asked the command that is wanted, which is then the only one; all of them unless it is the name of one
 */
export async function commandLine(asked = ""): Promise<Command> {
  const program = new Command("patchwise")
    .description(description)
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .showSuggestionAfterError()
    // Errors are reported by the caller, in one place and one form.
    .exitOverride()
    .configureOutput({ outputError: () => {} });
  program.hook("preAction", () => {
    const bytes = Buffer.byteLength([...process.execArgv, ...process.argv].join(" "));
    if (process.platform !== "linux" || bytes <= MOST_BYTES) return;
    throw new UsageError(
      `The command line has ${bytes} bytes, more than the ${MOST_BYTES} that ONNX Runtime can take; give a shorter prompt, or fewer files.`,
    );
  });
  const wanted = Object.hasOwn(commands, asked) ? [commands[asked]!] : Object.values(commands);
  for (const load of wanted) (await load())(program);
  return program;
}
