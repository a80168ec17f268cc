/**
 * `npm run bench -- ranks [--json]`: the training of the suite `train` by one rank and by two, of one core each, in alternating rounds.
 * Both compute the same batches, and their losses are compared.
 */
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { findMpi } from "../scripts/find-mpi.mjs";

const STEPS = 6;
const ROUNDS = 3;
const PICTURES = 64;
const SIDE = 32;

const root = path.resolve(import.meta.dirname, "..");
const hooks = `import{register}from"node:module";register(${JSON.stringify(`file://${root}/scripts/typescript-hooks.mjs`)})`;
const program = [
  process.execPath,
  "--import",
  `data:text/javascript,${encodeURIComponent(hooks)}`,
  path.join(root, "src/cli/main.ts"),
];

export interface RanksReport {
  /** Images a second of one rank and of two, medians over all steps but the first of each run. */
  readonly imagesPerSecond: readonly [one: number, two: number];
  readonly ratio: number;
  /** What `patchwise plan --link local` predicts for the same training on this machine, medians of one plan each round. */
  readonly planned: readonly [one: number, two: number];
  /** The largest relative difference of a loss. */
  readonly lossDifference: number;
  readonly mpi: string;
}

/** @throws Error where no MPI is installed */
export async function benchRanks(say: (line: string) => void): Promise<RanksReport> {
  const [mpi] = findMpi();
  if (!mpi)
    throw new Error(
      "The suite ranks needs Open MPI or MPICH: install one, for example with apt-get install openmpi-bin.",
    );
  const folder = await mkdtemp(path.join(tmpdir(), "patchwise-ranks-"));
  try {
    const config = await writeTraining(folder);
    const speeds: [number[], number[]] = [[], []];
    const plans: [number[], number[]] = [[], []];
    let lossDifference = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const losses: number[][] = [];
      for (const [i, of] of speeds.entries()) {
        const out = path.join(folder, `${round}-${i + 1}`);
        const args = [...mpi.flags, "-n", String(i + 1), ...program, "train", config, "--out", out];
        const { status, stderr } = spawnSync(mpi.command, args, { encoding: "utf8" });
        if (status !== 0) throw new Error(`The training by ${i + 1} ranks failed: ${stderr}`);
        const lines = (await readFile(path.join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
        const steps = lines.map((line) => JSON.parse(line) as Record<string, number>);
        of.push(...steps.slice(1).flatMap(({ imagesPerSecond }) => imagesPerSecond ?? []));
        losses.push(steps.flatMap(({ loss }) => loss ?? []));
        say(`round ${round + 1}: ${i + 1} ranks, ${median(of).toFixed(2)} images/s`);
      }
      for (const [i, loss] of losses[0]!.entries()) {
        lossDifference = Math.max(lossDifference, Math.abs(losses[1]![i]! / loss - 1));
      }
      // In the same round, since a machine that others share is faster at one time than at another.
      for (const [i, speed] of plannedSpeeds(config).entries()) plans[i]!.push(speed);
      say(
        `round ${round + 1}: planned ${plans.map((of) => of.at(-1)!.toFixed(2)).join(" and ")} images/s`,
      );
    }
    const imagesPerSecond = [median(speeds[0]), median(speeds[1])] as const;
    const planned = [median(plans[0]), median(plans[1])] as const;
    return {
      imagesPerSecond,
      ratio: imagesPerSecond[1] / imagesPerSecond[0],
      planned,
      lossDifference,
      mpi: mpi.name,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Images a second of one rank and of two, as planned. */
function plannedSpeeds(config: string): readonly [number, number] {
  const [node, ...args] = [
    ...program,
    "plan",
    config,
    "--ranks",
    "1,2",
    "--link",
    "local",
    "--json",
  ];
  const { status, stdout, stderr } = spawnSync(node, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`The plan failed: ${stderr}`);
  const { ranks } = JSON.parse(stdout) as { ranks: readonly { imagesPerSecond: number }[] };
  return [ranks[0]!.imagesPerSecond, ranks[1]!.imagesPerSecond];
}

/** Pictures of noise, and the config of a DiT of 33M parameters on them. */
async function writeTraining(folder: string): Promise<string> {
  const pictures = path.join(folder, "pictures");
  await mkdir(pictures);
  for (let i = 0; i < PICTURES; i++) {
    const pixels = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, k) => (k * (i + 3)) % 251);
    const raw = { width: SIDE, height: SIDE, channels: 3 } as const;
    await sharp(pixels, { raw })
      .png()
      .toFile(path.join(pictures, `${i}.png`));
  }
  const config = path.join(folder, "ranks.yaml");
  await writeFile(
    config,
    `data: { kind: images, path: ${JSON.stringify(pictures)} }
picture: { size: ${SIDE} }
model: { patch: 4, hidden: 384, depth: 12, heads: 6 }
training: { steps: ${STEPS}, batch: 32, threads: 1, shardOptimizer: true }
samples: { grids: 0 }
validation: { share: 0 }
checkpoint: { steps: 1000 }
log: { steps: 1 }
`,
  );
  return config;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}
