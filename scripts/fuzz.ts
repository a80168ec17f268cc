/**
 * Feeds damaged files to everything that reads files or answers of strangers: npm run fuzz -- --target tar --seconds 60
 *
 * A right answer is to read the file, or to refuse it in one sentence. Anything else is reported with the command that
 * repeats it, and the input is kept in `--out`: another error, more than 5 s, more than 1 GB of memory, the end of the process.
 */
import { fork } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { BROKEN, type Report, type Task } from "./fuzz/task.ts";
import { damaged } from "./fuzz/mutations.ts";
import type { OpenTarget } from "./fuzz/target.ts";

const HANG = 5000;
/** A process that waits without working may wait for a busy machine. */
const STILL = 60_000;
const MEMORY = 1e9;
const HOUR = 3600;
/** After so many, a target is broken rather than damaged files unlucky. */
const MOST_FINDINGS = 20;
/** Writing to a disk would take most of the time. */
const memoryDisk = "/dev/shm";

const { values } = parseArgs({
  options: {
    target: { type: "string", multiple: true },
    seconds: { type: "string" },
    count: { type: "string" },
    seed: { type: "string" },
    from: { type: "string" },
    out: { type: "string", default: "runs/fuzz" },
  },
});

const numberOf = (name: "seconds" | "count" | "seed" | "from", otherwise: number) => {
  const value = values[name] === undefined ? otherwise : Number(values[name]);
  if (value >= 0) return value;
  console.error(`--${name} must be a number from 0, but is ${values[name]}.`);
  process.exit(2);
};

const known = join(import.meta.dirname, "fuzz/targets");
const names = readdirSync(known).map((file) => basename(file, ".ts"));
/** Names of `targets/`, or paths of further modules. */
const chosen = values.target ?? names;
const moduleOf = (name: string) =>
  pathToFileURL(names.includes(name) ? join(known, `${name}.ts`) : resolve(name)).href;

for (const name of chosen) {
  if (names.includes(name) || existsSync(name)) continue;
  console.error(`--target ${name} is neither a file nor one of ${names.join(", ")}.`);
  process.exit(2);
}

interface Finding {
  readonly index: number;
  readonly flaw: string;
}

interface Tally {
  inputs: number;
  accepted: number;
  kinds: number;
  memory: number;
  cpu: number;
  slowest: number;
  findings: number;
  add(finding: Finding): void;
}

function newTally(keep: (finding: Finding) => void): Tally {
  const tally = {
    inputs: 0,
    accepted: 0,
    kinds: 0,
    memory: 0,
    cpu: 0,
    slowest: 0,
    findings: 0,
    add(finding: Finding) {
      tally.findings++;
      keep(finding);
    },
  };
  return tally;
}

/** Milliseconds for which a process has worked, in the 10 ms of Linux; undefined elsewhere. */
function processorTime(pid: number): number | undefined {
  try {
    // The name of the program, in parentheses, may hold spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)!.split(" ");
    return 10 * (Number(fields[11]) + Number(fields[12]));
  } catch {
    return undefined;
  }
}

/** Runs one child from `task.from` on. Returns where the next one has to begin. */
async function runChild(task: Task, tally: Tally): Promise<number> {
  writeFileSync(task.progress, new Uint8Array(new Float64Array([task.from]).buffer));
  const child = fork(join(import.meta.dirname, "fuzz/child.ts"), {
    execArgv: [...process.execArgv, "--max-old-space-size=1024"],
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let [errors, next, hung] = ["", -1, false];
  child.stderr!.on("data", (data: Buffer) => (errors = (errors + data.toString()).slice(-4000)));
  child.on("message", (report: Report) => {
    if (report.kind === "flaw") tally.add(report);
    else {
      next = report.next;
      tally.accepted += report.accepted;
      tally.kinds = Math.max(tally.kinds, report.kinds);
      tally.memory = Math.max(tally.memory, report.memory);
      tally.cpu += report.cpu;
      tally.slowest = Math.max(tally.slowest, report.slowest);
    }
  });
  child.send(task);
  const progress = openSync(task.progress, "r");
  const current = () => {
    const place = new Float64Array(1);
    readSync(progress, place, 0, 8, 0);
    return place[0]!;
  };
  let [seen, since, worked, started] = [-1, Date.now(), 0, false];
  const watch = setInterval(() => {
    const index = current();
    // Before the first input a child only loads modules.
    started ||= index > task.from;
    const work = processorTime(child.pid!);
    if (index !== seen || next >= 0) [seen, since, worked] = [index, Date.now(), work ?? 0];
    const waited = Date.now() - since;
    const limit = started ? HANG : 6 * HANG;
    if (waited < STILL && (work === undefined ? waited : work - worked) < limit) return;
    hung = true;
    child.kill("SIGKILL");
  }, 250);
  const [code, signal] = await new Promise<[number | null, string | null]>((ended) =>
    child.once("close", (...how) => ended(how)),
  );
  clearInterval(watch);
  const last = current();
  closeSync(progress);
  if (next >= 0) return next;
  if (code === BROKEN) throw new Error(errors);
  const flaw = hung
    ? `hangs for ${HANG / 1000} s`
    : `ends the process with ${signal ?? code}: ${errors}`;
  tally.add({ index: last, flaw });
  return last + 1;
}

async function fuzz(name: string, seed: number, count: number, seconds: number): Promise<Tally> {
  const folder = mkdtempSync(
    join(existsSync(memoryDisk) ? memoryDisk : tmpdir(), "patchwise-fuzz-"),
  );
  const progress = join(folder, "progress");
  const target = moduleOf(name);
  const first = numberOf("from", 0);
  const until = Math.min(Date.now() + seconds * 1000, Number.MAX_SAFE_INTEGER);
  try {
    const { open } = (await import(target)) as { open: OpenTarget };
    const files = await open(folder);
    const tally = newTally(({ index, flaw }) => {
      const file = join(values.out, `${basename(name, ".ts")}-${seed}-${index}`);
      mkdirSync(values.out, { recursive: true });
      writeFileSync(file, damaged(files, seed, index));
      console.log(`${name}, input ${index}: ${flaw}`);
      console.log(
        `  kept as ${file}; again: npm run fuzz -- --target ${name} --seed ${seed} --from ${index} --count 1`,
      );
    });
    for (let from = first; from < first + count && Date.now() < until;) {
      const rest = first + count - from;
      const common = { target, seed, until, folder, progress, memory: MEMORY };
      const next = await runChild({ ...common, from, count: rest }, tally);
      tally.inputs += next - from;
      from = next;
      if (tally.findings >= MOST_FINDINGS) break;
    }
    return tally;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let found = 0;
for (const name of chosen) {
  const seed = numberOf("seed", Date.now() % 2 ** 31);
  const count = numberOf("count", Number.MAX_SAFE_INTEGER);
  const seconds = numberOf("seconds", values.count === undefined ? HOUR : Infinity);
  const begun = Date.now();
  const tally = await fuzz(name, seed, count, seconds / chosen.length);
  const { inputs, accepted, kinds, memory, cpu, slowest, findings } = tally;
  found += findings;
  console.log(
    `${name}: ${inputs} inputs (seed ${seed}) in ${((Date.now() - begun) / 1000).toFixed(0)} s, ${((1000 * cpu) / inputs).toFixed(1)} ms of processor time each (${(1000 * slowest).toFixed(0)} ms at most), ${accepted} read, ${kinds} kinds of refusals, ${(memory / 2 ** 20).toFixed(0)} MiB, ${findings} findings`,
  );
}
process.exitCode = found > 0 ? 1 : 0;
