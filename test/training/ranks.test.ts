/** One training by several processes, over the implementations of MPI that are installed. */
import { spawnSync } from "node:child_process";
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
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import {
  type Collective,
  ownRows,
  sumGradients,
} from "../../src/training/collective/collective.ts";
import { isSpokenFor, openMpi } from "../../src/training/collective/mpi-node.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { train } from "../../src/training/run/train-node.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { readAllFloat32 } from "../../src/weights/safetensors/safetensors.ts";
import { png } from "../data/support.ts";
import { type Job, launchers, startRanks } from "../support/mpi.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-ranks-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const yaml = () => `seed: 1
data: { kind: images, path: ${JSON.stringify(at("photos"))} }
picture: { size: 8 }
model: { patch: 4, hidden: 16, depth: 1, heads: 1 }
training: { steps: 50, batch: 6, accumulate: 2, warmUp: 1, clip: 1, threads: 1 }
checkpoint: { steps: 25, keep: 3 }
log: { steps: 1 }
`;

beforeAll(async () => {
  for (const [name, red] of Object.entries({ ant: 10, bee: 120 })) {
    mkdirSync(at("photos", name), { recursive: true });
    for (let i = 0; i < 7; i++) {
      writeFileSync(at("photos", name, `${i}.png`), await png(red + i));
    }
  }
  writeFileSync(at("photos.yaml"), yaml());
});

const losses = (folder: string) =>
  readFileSync(at(folder, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { loss: number }).loss);

/** The largest difference of a loss to that of one process alone, in parts of it. */
function lossesOff(folder: string): number {
  const own = losses(folder);
  expect(own).toHaveLength(50);
  return Math.max(...losses("alone").map((loss, i) => Math.abs(own[i]! / loss - 1)));
}

async function weightsOf(folder: string): Promise<Float32Array> {
  const file = await openSafetensorsFile(at(folder, "model.safetensors"));
  const arrays = Object.values(await readAllFloat32(file));
  await file.close();
  return Float32Array.from(arrays.flatMap(({ data }) => [...data]));
}

/** ‖a − b‖ / ‖b‖ */
function distance(a: Float32Array, b: Float32Array): number {
  const norm = (of: (i: number) => number) => Math.hypot(...Array.from(b, (_, i) => of(i)));
  return norm((i) => a[i]! - b[i]!) / norm((i) => b[i]!);
}

const command = (out: string, ...more: string[]) => [
  "train",
  at("photos.yaml"),
  "--out",
  at(out),
  ...more,
];

/** The processes that were started with these arguments. One that has ended has none, even if its parent has not asked how. */
function processesOf(args: readonly string[]): number[] {
  const found = spawnSync("pgrep", ["-f", args.join(" ")], { encoding: "utf8" }).stdout;
  return found.split("\n").filter(Boolean).map(Number);
}

async function succeed(job: Job["ended"]): Promise<void> {
  const { code, said } = await job;
  expect(code === 0 ? "ended well" : said).toBe("ended well");
}

describe.skipIf(launchers.length === 0)("several ranks", () => {
  const [first] = launchers;
  const last = launchers.at(-1)!;

  it("follow the losses of one", async () => {
    await train(readTrainingConfig("photos.yaml", yaml()), {
      backend: nodeBackend("cpu"),
      out: at("alone"),
    });
    await succeed(startRanks(first!, 2, command("whole")).ended);
    expect(lossesOff("whole")).toBeLessThan(1e-4);
    expect(distance(await weightsOf("alone"), await weightsOf("whole"))).toBeLessThan(1e-5);
  }, 120_000);

  it("resume at the same number with the same weights", async () => {
    cpSync(at("whole"), at("half"), { recursive: true });
    rmSync(at("half", "checkpoints", "step-00000050"), { recursive: true });
    cpSync(at("half"), at("other"), { recursive: true });
    await succeed(startRanks(first!, 2, command("half", "--resume")).ended);
    expect(await weightsOf("half")).toEqual(await weightsOf("whole"));
  }, 120_000);

  it("resume at another number with nearly the same", async () => {
    await succeed(startRanks(last, 3, command("other", "--resume")).ended);
    expect(lossesOff("other")).toBeLessThan(1e-4);
    expect(distance(await weightsOf("other"), await weightsOf("whole"))).toBeLessThan(1e-5);
  }, 120_000);

  it("divide the optimizer among them, with the same weights and checkpoints", async () => {
    const divided = ["--set", "training.shardOptimizer=true"];
    await succeed(startRanks(last, 2, command("divided", ...divided)).ended);
    expect(lossesOff("divided")).toBeLessThan(1e-4);
    expect(distance(await weightsOf("divided"), await weightsOf("alone"))).toBeLessThan(1e-5);
  }, 120_000);

  it("resume with a divided optimizer at another number", async () => {
    const divided = ["--set", "training.shardOptimizer=true"];
    rmSync(at("divided", "checkpoints", "step-00000050"), { recursive: true });
    await succeed(startRanks(first!, 3, command("divided", ...divided, "--resume")).ended);
    expect(lossesOff("divided")).toBeLessThan(1e-4);
    expect(distance(await weightsOf("divided"), await weightsOf("alone"))).toBeLessThan(1e-5);
  }, 120_000);

  const local = ["--set", "training.localSteps.steps=10", "--set", "checkpoint.steps=1"];

  it("train alone for some steps, meet before a checkpoint, and resume with the same weights", async () => {
    await succeed(startRanks(first!, 2, command("local", ...local)).ended);
    expect(readdirSync(at("local", "checkpoints"))).toEqual([
      "step-00000030",
      "step-00000040",
      "step-00000050",
    ]);
    const whole = await weightsOf("local");
    expect(distance(whole, await weightsOf("alone"))).toBeGreaterThan(1e-5);
    rmSync(at("local", "checkpoints", "step-00000050"), { recursive: true });
    cpSync(at("local"), at("others"), { recursive: true });
    await succeed(startRanks(first!, 2, command("local", ...local, "--resume")).ended);
    expect(await weightsOf("local")).toEqual(whole);
  }, 120_000);

  it("resume between meetings at another number", async () => {
    // Three ranks go other ways, from where two have met.
    await succeed(startRanks(first!, 3, command("others", ...local, "--resume")).ended);
    expect(losses("others").slice(0, 40)).toEqual(losses("local").slice(0, 40));
    expect(losses("others")[40]).toBeCloseTo(losses("local")[40]!, 4);
    expect(losses("others").slice(41)).not.toEqual(losses("local").slice(41));
    expect(losses("others")).toHaveLength(50);
  }, 120_000);

  it("end together when one of them is killed, and leave a whole checkpoint", async () => {
    const args = command("killed", "--set", "training.steps=100000", "--set", "checkpoint.steps=3");
    const job = startRanks(first!, 2, args);
    while (!existsSync(at("killed", "checkpoints", "step-00000003"))) await sleep(50);
    const began = performance.now();
    process.kill(
      processesOf(args).findLast((pid) => pid !== job.process.pid)!,
      "SIGKILL",
    );
    const { code, said } = await job.ended;
    expect(code).not.toBe(0);
    // MPICH's launcher may end the other rank before it can speak.
    expect(said).toMatch(
      first!.name === "MPICH"
        ? /EXIT CODE: 9/
        : /^patchwise: Rank [01] of 2 was killed or has crashed, so all ranks end; .*\.$/m,
    );
    // The launcher may end a moment before the others have.
    while (processesOf(args).length > 0) await sleep(50);
    expect(performance.now() - began).toBeLessThan(30_000);
    const done = Number(readdirSync(at("killed", "checkpoints")).at(-1)!.replace("step-", ""));
    const more = [`training.steps=${done + 1}`, "checkpoint.steps=3"];
    const resumed = await train(readTrainingConfig("photos.yaml", yaml(), more), {
      backend: nodeBackend("cpu"),
      out: at("killed"),
      resume: true,
    });
    expect(resumed.steps).toBe(done + 1);
  }, 120_000);

  it.each(launchers)("keep V8's handlers of signals under $name", async (launcher) => {
    const script = path.resolve(import.meta.dirname, "../support/trapping-rank.mjs");
    const { code, said } = await startRanks(launcher, 2, [], script).ended;
    expect(said.trim().split("\n").toSorted()).toEqual(
      [0, 1].map((rank) => `rank ${rank}: RuntimeError: memory access out of bounds`),
    );
    expect(code).toBe(0);
  });

  it("refuse to train with different configs", async () => {
    const own = ["1", "2"].map((seed) => command("differs", "--set", `seed=${seed}`));
    const { code, said } = await startRanks(last, own).ended;
    expect(code).not.toBe(0);
    expect(said).toContain(
      "patchwise: Rank 1 of 2 would train with another config or other pictures than rank 0; start all ranks with the same arguments, and give them the same files.",
    );
    expect(existsSync(at("differs"))).toBe(false);
  }, 60_000);

  it("say once what is wrong with their command line", async () => {
    for (const launcher of launchers) {
      const { code, said } = await startRanks(launcher, 2, ["train", "--nonsense"]).ended;
      expect(code).toBe(2);
      expect(said.match(/^patchwise: unknown option '--nonsense'/gm)).toHaveLength(1);
    }
  }, 60_000);

  it("are not left each to itself by a library that knows nothing of the others", () => {
    for (const { name } of launchers) {
      const told =
        name === "MPICH"
          ? { PMI_SIZE: "2" }
          : { OMPI_COMM_WORLD_SIZE: "2", OMPI_ALLOW_RUN_AS_ROOT: "1" };
      const { status, stderr } = spawnSync(
        process.execPath,
        [path.resolve("dist/cli/main.js"), ...command("itself")],
        { env: { ...process.env, ...told }, encoding: "utf8" },
      );
      expect(stderr).toMatch(
        new RegExp(`^patchwise: .* a launcher of ${name} started 2 processes, but .* knows of 1; `),
      );
      expect(status).toBe(2);
    }
    expect(existsSync(at("itself"))).toBe(false);
  }, 60_000);
});

describe("a rank", () => {
  const rank = { rank: 1, size: 3 };

  it("computes its rows of a batch that the ranks divide", () => {
    expect(ownRows(rank, 12)).toEqual({ from: 4, count: 4 });
    expect(() => ownRows(rank, 10)).toThrow(
      "training.batch is 10, which 3 processes cannot share equally; set it to a multiple of 3, such as 9.",
    );
  });

  it("gets the sums of the gradients, of small ones in few calls", () => {
    const lengths: number[] = [];
    const twoRanks: Collective = {
      rank: 0,
      size: 2,
      local: 2,
      sum(values) {
        lengths.push(values.length);
        for (let i = 0; i < values.length; i++) values[i]! *= 2;
      },
      broadcast() {},
      sumParts() {},
      gatherParts() {},
    };
    const sizes = [...Array.from({ length: 20 }, (_, i) => i), 2 ** 16, 3, 2 ** 20 + 1];
    const arrays = (factor: number) =>
      Object.fromEntries(
        sizes.map((length, i) => [
          `w${i}`,
          {
            dtype: "float32" as const,
            shape: [length],
            data: new Float32Array(length).fill(factor * i),
          },
        ]),
      );
    expect(sumGradients(twoRanks, arrays(1))).toEqual(arrays(2));
    expect(lengths).toEqual([193, 2 ** 16, 2 ** 20, 1]);
  });

  it("is alone unless a launcher says otherwise", () => {
    expect(openMpi({})).toBeUndefined();
    expect(openMpi({ OMPI_COMM_WORLD_SIZE: "1", PMI_SIZE: "1" })).toBeUndefined();
    expect(openMpi({ SLURM_STEP_NUM_TASKS: "4" })).toBeUndefined();
  });

  it("leaves it to the first one of its machine to say why MPI cannot be had", () => {
    const job = { OMPI_COMM_WORLD_SIZE: "4", OMPI_COMM_WORLD_RANK: "2" };
    expect(isSpokenFor({ ...job, OMPI_COMM_WORLD_LOCAL_RANK: "0" })).toBe(false);
    expect(isSpokenFor({ ...job, OMPI_COMM_WORLD_LOCAL_RANK: "1" })).toBe(true);
    expect(isSpokenFor(job)).toBe(false);
    expect(isSpokenFor({ OMPI_COMM_WORLD_LOCAL_RANK: "1" })).toBe(false);
  });
});
