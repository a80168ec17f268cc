/**
 * Devices whose native libraries write to file descriptor 2 themselves: Dawn, Vulkan's loader and Mesa tell there what the caller learns
 * from an exception. No setting of theirs stops that and Node cannot redirect a descriptor, so the command runs in a child, whose
 * descriptor 2 is a pipe to this process and whose `process.stderr` is this process's on another descriptor.
 */
import { spawn } from "node:child_process";
import { fstatSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { Socket } from "node:net";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { isatty, WriteStream } from "node:tty";
import type { DeviceName } from "../engine/runtime/ort-session-node.ts";
import { startedByMpi } from "../training/collective/mpi-node.ts";
import { writeText } from "./terminal.ts";

/** The devices whose libraries write to the terminal. */
const noisy: { readonly [D in DeviceName]: boolean } = {
  cpu: false,
  cuda: false,
  coreml: false,
  dml: false,
  webgpu: true,
};

/** Set for the child, to the id of the process that started it, so that neither it nor a process that it starts does so again. */
const variable = "PATCHWISE_QUIETED_BY";
const NOISE = 2;
const STDERR = 3;
/** A pipe that closes when the parent ends, however it does. */
const LIFELINE = 4;

/** Bytes of noise that are kept for a crash. */
const KEPT = 64 * 1024;

/** Exit codes of a command that has said why it ended. */
const explained = [0, 1, 2, 130];

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGWINCH"] as const;

/** True if a command is to run in a quiet child. Ranks of a job are not, since launchers give descriptors to their process alone. */
export function isNoisy(args: readonly string[]): boolean {
  // On Windows, a process group of its own would need a console of its own.
  if (process.platform === "win32" || startedByMpi()) return false;
  const device = args.findLast(
    (arg, i) => args[i - 1] === "--device" || arg.startsWith("--device="),
  );
  const [name] = (device?.replace("--device=", "") ?? "cpu").split(":") as [string];
  return Object.hasOwn(noisy, name) && noisy[name as DeviceName];
}

/** Runs the same command in a quiet child and ends as that ends, by the same exit code or signal. */
export async function runQuietly(): Promise<never> {
  // A process group of its own gets Ctrl-C only from here, once; as a member of this one it would get it twice.
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    stdio: ["inherit", "inherit", "pipe", NOISE, "pipe"],
    env: { ...process.env, [variable]: String(process.pid) },
    detached: true,
  });
  for (const signal of forwarded) process.on(signal, () => child.kill(signal));
  // Ctrl-Z pauses both; the kernel would not pause a group without a shell at a gentler signal.
  process.on("SIGTSTP", () => {
    child.kill("SIGSTOP");
    process.kill(process.pid, "SIGSTOP");
  });
  process.on("SIGCONT", () => child.kill("SIGCONT"));

  let kept = Buffer.alloc(0);
  child.stderr!.on("data", (data: Buffer) => {
    kept = Buffer.concat([kept, data]).subarray(-KEPT);
  });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(
    (resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (...end) => resolve(end));
    },
  );
  const sent = signal !== null && forwarded.some((each) => each === signal);
  if (signal === null ? !explained.includes(code!) : !sent) {
    // Processes that the child has left behind may hold the pipe open.
    await Promise.race([closed, sleep(500)]);
    writeText(process.stderr, kept.toString());
  }
  if (signal !== null) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // Node ignores some signals, and a handled one may arrive a little later.
    await sleep(100);
    process.exit(128 + constants.signals[signal]);
  }
  process.exit(code);
}

/** Makes this process a quiet child if it was started as one; false if it was not. */
export function becomeQuiet(): boolean {
  const parent = process.env[variable];
  delete process.env[variable];
  if (parent !== String(process.ppid)) return false;
  const stderr = isatty(STDERR) ? new WriteStream(STDERR) : descriptorStream(STDERR);
  Object.defineProperty(process, "stderr", { configurable: true, enumerable: true, value: stderr });
  // A method that Node documents nowhere, but calls so for its own streams.
  const resized: unknown = Reflect.get(stderr, "_refreshSize");
  if (typeof resized === "function") process.on("SIGWINCH", () => resized.call(stderr));
  // Node itself writes these to descriptor 2.
  process.on("uncaughtExceptionMonitor", ({ stack }) => writeText(stderr, `${stack}\n`));
  const lifeline = new Socket({ fd: LIFELINE }).on("close", () => {
    process.kill(process.pid, "SIGHUP");
  });
  lifeline.on("error", () => {}).resume();
  lifeline.unref();
  return true;
}

/** A file, pipe or socket that is written at once, as process.stderr is. */
function descriptorStream(descriptor: number): Writable {
  fstatSync(descriptor);
  return new Writable({
    decodeStrings: true,
    write(chunk: Buffer, _encoding, done) {
      try {
        for (let at = 0; at < chunk.length;) at += writtenAt(descriptor, chunk.subarray(at));
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}

/** Writes what a descriptor takes now, and returns the number of bytes. */
function writtenAt(descriptor: number, bytes: Buffer): number {
  try {
    return writeSync(descriptor, bytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    return 0;
  }
}
