/**
 * Ends each command at random moments by SIGTERM and Ctrl-C's signal, and states how long it takes to end: npm run test:signals -- 20
 * kills each command twenty times. On a busy machine the processor time after the signal says more than the clock, so a kill fails
 * if it takes more than two seconds of both. A training that was killed must resume. Linux only.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { randomKey, fork, uniform } from "../src/engine/random/random.ts";

const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
const fixtures = path.resolve(import.meta.dirname, "../test/fixtures");
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-kills-"));
const [times = "4", ...only] = process.argv.slice(2);
/** The most seconds that a command may take to end. */
const MOST = 2;
/** Seconds over which the moments of the kills are spread. */
const LONGEST = 40;

interface Row {
  readonly name: string;
  readonly args: readonly string[];
  /** Output that is removed before each run; a command without any starts anew by itself. */
  readonly out?: string;
  /** Checks, after a kill, that the state is whole: this command must succeed or say that there is nothing yet. */
  readonly afterwards?: readonly string[];
}

const train = ["train", "train.yaml", "--out", "run"];
const rows: readonly Row[] = [
  {
    name: "train",
    args: train,
    out: "run",
    afterwards: [...train, "--resume", "--set", "training.minutes=0.001"],
  },
  { name: "train, wide", args: ["train", "wide.yaml", "--out", "wide"], out: "wide" },
  { name: "lora", args: ["train", "lora.yaml", "--out", "lora"], out: "lora" },
  { name: "autoencoder", args: ["train", "vq.yaml", "--out", "vq"], out: "vq" },
  {
    name: "generate",
    args: ["generate", "red heart", "--steps", "300", "--count", "4", "--out", "x.png"],
  },
  {
    name: "evaluate",
    args: ["evaluate", "emoji", "--limit", "8", "--out", "evaluated"],
    out: "evaluated",
  },
  {
    name: "compare",
    args: [
      "compare",
      "train.yaml",
      "wide.yaml",
      "--minutes",
      "0.1",
      "--count",
      "20",
      "--out",
      "compared",
    ],
    out: "compared",
  },
  { name: "export", args: ["export", "emoji", "--out", "emoji.onnx"] },
  { name: "quantize", args: ["quantize", "emoji", "--type", "q8_0", "--out", "emoji.gguf"] },
  { name: "plan", args: ["plan", "wide.yaml", "--ranks", "1,2"] },
  { name: "info", args: ["info", "emoji"] },
  { name: "verify", args: ["verify", path.join(fixtures, "dit"), path.join(fixtures, "sana")] },
  { name: "serve", args: ["serve", "--port", "0", "--output", "served"] },
  { name: "studio", args: ["studio", "--port", "0"] },
];

interface Kill {
  readonly after: number;
  readonly wall: number;
  readonly processor: number;
  readonly code: string;
  readonly told: string;
}

/** User and system time of a process and its children so far, in seconds. */
function processorTime(pid: number): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}

async function killed(
  args: readonly string[],
  after: number,
  signal: "SIGTERM" | "SIGINT",
): Promise<Kill> {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  child.stderr.on("data", (data: Buffer) => (told += data.toString()));
  const ended = new Promise<string>((resolve) =>
    child.once("exit", (code, by) => resolve(String(by ?? code))),
  );
  const timer = new Promise<undefined>((resolve) =>
    setTimeout(() => resolve(undefined), after * 1000),
  );
  if ((await Promise.race([ended, timer])) !== undefined) {
    return { after, wall: 0, processor: 0, code: "had ended", told };
  }
  const before = processorTime(child.pid!) ?? 0;
  let last = before;
  const watch = setInterval(() => (last = processorTime(child.pid!) ?? last), 20);
  const begun = performance.now();
  child.kill(signal);
  const code = await ended;
  clearInterval(watch);
  return { after, wall: (performance.now() - begun) / 1000, processor: last - before, code, told };
}

async function prepare(): Promise<void> {
  mkdirSync(path.join(folder, "pictures"));
  for (let i = 0; i < 40; i++) {
    const { data } = uniform(fork(randomKey(0), i), [32 * 32 * 3]);
    const pixels = Uint8Array.from(data, (value) => 256 * value);
    await sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } })
      .png()
      .toFile(path.join(folder, "pictures", `${i}.png`));
    writeFileSync(path.join(folder, "pictures", `${i}.txt`), `picture ${i}`);
  }
  const data = "data: { kind: images, path: pictures }\npicture: { size: 32 }\n";
  const rest =
    "training: { minutes: 5, batch: 8 }\nsamples: { steps: 5 }\ncheckpoint: { steps: 3 }\n";
  const config = (name: string, model: string) =>
    writeFileSync(path.join(folder, `${name}.yaml`), `${data}${model}\n${rest}`);
  config("train", "model: { kind: dit, patch: 4, hidden: 64, depth: 4, heads: 2 }");
  // A state of some hundred megabytes, so that saving takes a while.
  config("wide", "model: { kind: dit, patch: 8, hidden: 768, depth: 6, heads: 12 }");
  config("lora", "base: emoji\nlora: { rank: 4 }");
  writeFileSync(
    path.join(folder, "lora.yaml"),
    `base: emoji\nlora: { rank: 4 }\ndata: { kind: images, path: pictures }\n${rest}`,
  );
  config("vq", "autoencoder: { kind: vq }");
}

await prepare();
let failures = 0;
for (const row of rows) {
  if (only.length > 0 && !only.includes(row.name)) continue;
  const moments = uniform(fork(randomKey(1), row.name), [Number(times)]).data;
  for (const [i, moment] of moments.entries()) {
    if (row.out !== undefined) rmSync(path.join(folder, row.out), { recursive: true, force: true });
    // More of the moments are early, where programs are loaded and compiled.
    const kill = await killed(row.args, LONGEST * moment ** 2, i % 2 === 0 ? "SIGTERM" : "SIGINT");
    const slow = kill.wall > MOST && kill.processor > MOST;
    let state = "";
    if (row.afterwards && kill.code !== "had ended") {
      const { status, stderr } = spawnSync(process.execPath, [main, ...row.afterwards], {
        cwd: folder,
        encoding: "utf8",
      });
      const whole =
        status === 0 || /nothing to resume|no checkpoint|There is no training/i.test(stderr);
      if (!whole) failures++;
      state = whole ? ", state whole" : `, NOT WHOLE: ${stderr.trim().split("\n").at(-1)}`;
    }
    if (slow) failures++;
    console.log(
      `${row.name}: after ${kill.after.toFixed(1)} s, ended in ${kill.wall.toFixed(2)} s (${kill.processor.toFixed(2)} s of processor time) with ${kill.code}${state}${slow ? " SLOW" : ""}  | ${kill.told.trim().split("\n").at(-1)?.slice(-90)}`,
    );
  }
}
rmSync(folder, { recursive: true, force: true });
process.exitCode = failures > 0 ? 1 : 0;
