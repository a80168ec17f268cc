/**
 * Kills a random rank of a training by two at random moments: npm run test:ranks -- 20 does so twenty times with each MPI that is
 * installed, every other time while a checkpoint is written. After each kill no rank may be left within 30 seconds, every checkpoint
 * must open whole, and the training must resume by 1, 2 and 3 ranks to the weights of one that ran through: to the same bits by 2 ranks, to
 * 10⁻⁵ of their norm by others. Further arguments are fields of the config, or the only MPI to use:
 * npm run test:ranks -- 4 MPICH training.shardOptimizer=true. Linux only.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import sharp from "sharp";
import { fork, randomKey, uniform } from "../src/engine/random/random.ts";
import { openSafetensorsFile } from "../src/weights/safetensors/file-node.ts";
import { readAllFloat32 } from "../src/weights/safetensors/safetensors.ts";
import { type Launcher, launchers, startRanks } from "../test/support/mpi.ts";

const [times = "4", ...others] = process.argv.slice(2);
const settings = others.filter((each) => each.includes("="));
const names = others.filter((each) => !each.includes("="));
const RANKS = 2;
/** Seconds after which a rank that is left counts as one that hangs. */
const MOST = 30;
const CLOSE = 1e-5;

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-ranks-"));
const at = (...parts: string[]) => path.join(folder, ...parts);
const command = (out: string, ...more: string[]) => [
  "train",
  at("train.yaml"),
  "--out",
  at(out),
  ...more,
  ...settings.flatMap((setting) => ["--set", setting]),
];

async function prepare(): Promise<void> {
  mkdirSync(at("pictures"));
  for (let i = 0; i < 40; i++) {
    const { data } = uniform(fork(randomKey(0), i), [16 * 16 * 3]);
    const pixels = Uint8Array.from(data, (value) => 256 * value);
    await sharp(pixels, { raw: { width: 16, height: 16, channels: 3 } })
      .png()
      .toFile(at("pictures", `${i}.png`));
  }
  // A checkpoint of 15 MB, so that some kills fall into its writing.
  writeFileSync(
    at("train.yaml"),
    `data: { kind: images, path: ${JSON.stringify(at("pictures"))} }
picture: { size: 16 }
model: { patch: 4, hidden: 224, depth: 1, heads: 2 }
training: { steps: 10, batch: 6, accumulate: 2, warmUp: 5, threads: 1 }
samples: { grids: 0 }
checkpoint: { steps: 2, keep: 2 }
log: { steps: 1 }
`,
  );
}

/** The processes of this training that are ranks, by number. Zombies have no command line. */
function ranksOf(out: string): Map<number, number> {
  const found = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      if (!words.includes(at(out)) || !words[0]!.endsWith("node")) continue;
      const environment = readFileSync(`/proc/${name}/environ`, "utf8");
      const rank = /(?:^|\0)(?:OMPI_COMM_WORLD_RANK|PMI_RANK)=(\d+)/.exec(environment)?.[1];
      if (rank !== undefined) found.set(Number(rank), Number(name));
    } catch {
      continue; // It has ended.
    }
  }
  return found;
}

async function run(launcher: Launcher, ranks: number, out: string, ...more: string[]) {
  const begun = performance.now();
  const { code, said } = await startRanks(launcher, ranks, command(out, ...more)).ended;
  if (code !== 0) throw new Error(`${launcher.name}, ${ranks} ranks: ended with ${code}: ${said}`);
  return (performance.now() - begun) / 1000;
}

async function arraysIn(file: string): Promise<Float32Array[]> {
  const opened = await openSafetensorsFile(file);
  const arrays = Object.values(await readAllFloat32(opened));
  await opened.close();
  return arrays.map(({ data }) => data);
}

/** ‖a − b‖ / ‖b‖ */
function distance(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let [difference, norm] = [0, 0];
  for (const [i, array] of b.entries()) {
    for (const [k, value] of array.entries()) {
      difference += (a[i]![k]! - value) ** 2;
      norm += value ** 2;
    }
  }
  return Math.sqrt(difference / norm);
}

interface Kill {
  /** Seconds until no rank was left. */
  readonly seconds: number;
  readonly moment: string;
  readonly said: string;
}

/**
 * Trains, and kills a rank: at a share of the seconds that the whole training takes, or while the checkpoint at that share is written.
 * Returns undefined if the training was over before.
 */
async function killed(
  launcher: Launcher,
  out: string,
  { rank, share, writing, whole }: { rank: number; share: number; writing: boolean; whole: number },
): Promise<Kill | undefined> {
  const job = startRanks(launcher, RANKS, command(out));
  const begun = performance.now();
  const over = job.ended.then(() => "over" as const);
  const checkpoints = at(out, "checkpoints");
  const unfinished = () => (existsSync(checkpoints) ? readdirSync(checkpoints) : []);
  const due = () =>
    writing
      ? unfinished().some(
          (name) =>
            name.startsWith(".unfinished-") && Number(name.slice(-8)) >= 2 * Math.ceil(4 * share),
        )
      : performance.now() - begun > 1000 * share * whole;
  while (!due()) {
    if ((await Promise.race([over, sleep(1)])) === "over") break;
  }
  let pid = ranksOf(out).get(rank);
  while (pid === undefined && (await Promise.race([over, sleep(5)])) !== "over") {
    pid = ranksOf(out).get(rank);
  }
  if (pid !== undefined) process.kill(pid, "SIGKILL");
  const moment = `${((performance.now() - begun) / 1000).toFixed(1)} s${writing ? ", writing" : ""}`;
  const seconds = await untilGone(out);
  const { said } = await job.ended;
  return pid === undefined ? undefined : { seconds, moment, said };
}

/** Seconds until no rank is left, without those in which this process stood still itself, as on a machine that pauses. */
async function untilGone(out: string): Promise<number> {
  let seconds = 0;
  for (let last = performance.now(); ranksOf(out).size > 0 && seconds < 2 * MOST;) {
    await sleep(20);
    const now = performance.now();
    seconds += Math.min(1, (now - last) / 1000);
    last = now;
  }
  return seconds;
}

/** Lines of what was said that are no sentences of the launcher or of Patchwise. */
function noise(said: string): string | undefined {
  return said
    .split("\n")
    .find((line) => /^\s+at |^\w*Error:|Assertion|Segmentation|core dumped|BTL|PML/.test(line));
}

async function killAndResume(launcher: Launcher, whole: number, i: number): Promise<string[]> {
  const [rank, share] = uniform(fork(fork(randomKey(1), launcher.name), i), [2]).data;
  const chosen = Math.floor(RANKS * rank!);
  let kill: Kill | undefined;
  for (let earlier = share!; !kill; earlier *= 0.8) {
    rmSync(at("killed"), { recursive: true, force: true });
    kill = await killed(launcher, "killed", {
      rank: chosen,
      share: earlier,
      writing: i % 2 === 1,
      whole,
    });
  }
  const problems: string[] = [];
  if (kill.seconds > MOST) problems.push("RANKS ARE LEFT");
  if (!/signal 9|EXIT CODE: 9|KILLED/i.test(kill.said)) problems.push(`NOT SAID: ${kill.said}`);
  if (/^patchwise: Rank \d of \d was killed .*\.$/m.test(kill.said)) own++;
  const unclear = noise(kill.said);
  if (unclear !== undefined) problems.push(`NOISE: ${unclear}`);
  const kept = existsSync(at("killed", "checkpoints"))
    ? readdirSync(at("killed", "checkpoints")).filter((name) => name.startsWith("step-"))
    : [];
  for (const name of kept) await arraysIn(at("killed", "checkpoints", name, "state.safetensors"));
  const expected = await arraysIn(at(`whole-${launcher.name}`, "model.safetensors"));
  const distances: string[] = [];
  for (const ranks of kept.length > 0 ? [1, 2, 3] : []) {
    rmSync(at("resumed"), { recursive: true, force: true });
    cpSync(at("killed"), at("resumed"), { recursive: true });
    await run(launcher, ranks, "resumed", "--resume");
    const off = distance(await arraysIn(at("resumed", "model.safetensors")), expected);
    distances.push(off.toExponential(1));
    if (off > (ranks === RANKS ? 0 : CLOSE)) problems.push(`${ranks} RANKS DIFFER`);
  }
  const resumed =
    distances.length > 0
      ? `resumed from ${kept.at(-1)}, off by ${distances.join(", ")}`
      : "nothing to resume";
  console.log(
    `${launcher.name} ${i + 1}: rank ${chosen} after ${kill.moment}; gone in ${kill.seconds.toFixed(2)} s; ${resumed} ${problems.join("; ")}`,
  );
  longest = Math.max(longest, kill.seconds);
  return problems;
}

let longest = 0;
/** How often a rank that was left has said which was killed. */
let own = 0;
let failures = 0;
await prepare();
const chosen = launchers.filter(({ name }) => names.length === 0 || names.includes(name));
for (const launcher of chosen) {
  const whole = await run(launcher, RANKS, `whole-${launcher.name}`);
  for (let i = 0; i < Number(times); i++) {
    const problems = await killAndResume(launcher, whole, i);
    if (problems.length > 0) failures++;
  }
}
console.log(
  `The last rank was gone after ${longest.toFixed(2)} s at most; a rank that was left said so ${own} times; ${failures} kills failed.`,
);
rmSync(folder, { recursive: true, force: true });
process.exitCode = failures > 0 || chosen.length === 0 ? 1 : 0;
