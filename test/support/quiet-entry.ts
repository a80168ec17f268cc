/** A command in a quiet child: it writes to descriptor 2 as native libraries do, and ends in the way that its argument names. */
import { writeSync } from "node:fs";
import { becomeQuiet, runQuietly } from "../../src/cli/quiet-process.ts";

if (!becomeQuiet()) await runQuietly();
writeSync(2, "native noise\n");

const ends: Readonly<Record<string, () => unknown>> = {
  well() {
    process.stderr.write(`${process.stderr.isTTY} ${"columns" in process.stderr}\n`);
    process.stdout.write("answer\n");
    process.exitCode = 1;
  },
  thrown() {
    throw new Error("a bug");
  },
  aborted: () => process.abort(),
  signalled() {
    let signals = 0;
    process.on("SIGINT", () => {
      signals++;
      setTimeout(() => {
        process.stderr.write(`stopped by ${signals}\n`);
        process.exit(130);
      }, 300);
    });
    setTimeout(() => {}, 20_000);
    process.stderr.write("ready\n");
  },
  killed() {
    setTimeout(() => {}, 20_000);
    process.stderr.write("ready\n");
  },
};
ends[process.argv[2]!]!();
