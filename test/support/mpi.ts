/** The command line as the ranks of a job of MPI. */
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { findMpi } from "../../scripts/find-mpi.mjs";

/** The built command line, since each rank of each job would strip the types of all modules. */
const commandLine = path.resolve(import.meta.dirname, "../../dist/cli/main.js");

/** The implementations of MPI that are installed here. */
export const launchers = findMpi();

export type Launcher = (typeof launchers)[number];

export interface Job {
  readonly process: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly said: string }>;
}

/** Starts ranks of `patchwise`, or of another script, with the same arguments, or each with its own. */
export function startRanks(
  { command, flags }: Launcher,
  ranks: readonly (readonly string[])[] | number,
  args: readonly string[] = [],
  entry = commandLine,
): Job {
  const own = typeof ranks === "number" ? undefined : ranks;
  const program = [process.execPath, entry];
  const parts = own
    ? own.flatMap((each, i) => [...(i > 0 ? [":"] : []), "-n", "1", ...program, ...each])
    : ["-n", String(ranks), ...program, ...args];
  // More ranks than cores are fine for tests.
  const shared = command.includes("mpich") ? [] : ["--oversubscribe"];
  const child = spawn(command, [...flags, ...shared, ...parts], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data: Buffer) => (said += data.toString()));
  }
  return {
    process: child,
    ended: new Promise((resolve) => child.once("close", (code) => resolve({ code, said }))),
  };
}
