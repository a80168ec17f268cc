/** The command line itself, as a process of its own. */
import { spawn, spawnSync } from "node:child_process";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../..");
const runner = path.join(root, "scripts/run.mjs");
const entry = path.join(root, "src/cli/main.ts");

export interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a command to its end, in the folder `cwd`. */
export function patchwise(args: readonly string[], cwd = root): Outcome {
  const run = spawnSync(process.execPath, [runner, entry, ...args], { cwd, encoding: "utf8" });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

/** Runs a command, and sends it Ctrl-C's signal once `when` shows on stderr. */
export async function interrupted(
  args: readonly string[],
  when: RegExp,
  cwd = root,
): Promise<Outcome> {
  const child = spawn(process.execPath, [runner, entry, ...args], { cwd });
  let [out, err] = ["", ""];
  child.stdout.on("data", (data: Buffer) => (out += data.toString()));
  let sent = false;
  child.stderr.on("data", (data: Buffer) => {
    err += data.toString();
    if (sent || !when.test(err)) return;
    sent = true;
    child.kill("SIGINT");
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, out, err };
}

/** What a failed command writes. */
export const oneSentence = /^patchwise: [^\n]+[.?]\n$/;
