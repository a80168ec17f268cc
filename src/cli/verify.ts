/** patchwise verify DIR…: compares outputs with recorded reference tensors. */
import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import type { Command } from "commander";
import { PatchwiseError, UsageError } from "../engine/errors.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { withRecording } from "../verify/recording-node.ts";
import { type RecordingReport, verifyRecording } from "../verify/verify.ts";
import { writeJsonLine, writeLine, writeText } from "./terminal.ts";

/** For a folder that could not be verified, `error` gives the reason. */
type FolderReport =
  | RecordingReport
  | {
      readonly name: string;
      readonly family: null;
      readonly ok: false;
      readonly outputs: readonly [];
      readonly error: string;
    };

export function addVerify(program: Command): void {
  program
    .command("verify")
    .summary("compare with recorded reference tensors")
    .description(
      "Recomputes the outputs of a reference implementation and prints the largest error of each output " +
        "against its tolerance. A folder holds config.json (family, arguments, tolerance), io.safetensors " +
        "(inputs and expected outputs) and, if the family needs them, weights.safetensors.",
    )
    .argument("<dir...>", "folders to verify")
    .option("--json", "print one JSON object: { ok, folders: [{ name, family, ok, outputs }] }")
    .addHelpText(
      "after",
      "\nExits with 0 if every output is within its tolerance, and with 1 otherwise.",
    )
    .action(verify);
}

async function verify(directories: string[], options: { json?: true }): Promise<void> {
  for (const directory of directories) await checkFolder(directory);
  const folders: FolderReport[] = [];
  for (const [i, directory] of directories.entries()) {
    if (process.stderr.isTTY) {
      writeLine(process.stderr, `Verifying ${directory} (${i + 1} of ${directories.length})`);
    }
    const folder = await verifyFolder(directory);
    folders.push(folder);
    if (!options.json) print(folder);
  }
  const ok = folders.every((folder) => folder.ok);
  if (options.json) writeJsonLine(process.stdout, { ok, folders });
  if (!ok) process.exitCode = 1;
}

async function checkFolder(directory: string): Promise<void> {
  const status = await stat(directory).catch(() => undefined);
  if (status?.isDirectory()) return;
  throw new UsageError(
    `${directory} ${status ? "is a file" : "does not exist"}; give a folder with config.json and io.safetensors.`,
  );
}

async function backend(): Promise<Backend> {
  const { nodeBackend } = await import("../engine/runtime/ort-node.ts");
  return nodeBackend("cpu");
}

async function verifyFolder(directory: string): Promise<FolderReport> {
  try {
    return await withRecording(directory, (recording) => verifyRecording(recording, backend));
  } catch (error) {
    // One invalid folder does not stop the verification of the others.
    if (!(error instanceof PatchwiseError)) throw error;
    writeLine(process.stderr, `patchwise: ${error.message}`);
    const name = basename(resolve(directory));
    return { name, family: null, ok: false, outputs: [], error: error.message };
  }
}

function print({ name, family, ok, outputs }: FolderReport): void {
  const failed = outputs.filter((output) => !output.ok).length;
  const summary = failed
    ? `${failed} of ${outputs.length} outputs failed`
    : `${outputs.length} outputs`;
  const width = Math.max(0, ...outputs.map((output) => output.name.length));
  const lines = outputs.map((output) => {
    const { max_error: error, tolerance, reason } = output;
    const verdict = `error ${text(error)}, tolerance ${text(tolerance)}${reason ? `: ${reason}` : ""}`;
    return `  ${output.ok ? "ok  " : "FAIL"} ${output.name.padEnd(width)}  ${verdict}\n`;
  });
  const heading = family === null ? "could not be verified" : `${family}, ${summary}`;
  writeText(process.stdout, `${ok ? "ok  " : "FAIL"} ${name}: ${heading}\n${lines.join("")}`);
}

function text(value: number | null): string {
  if (value === null) return "none";
  return value === 0 ? "0" : value.toExponential(1);
}
