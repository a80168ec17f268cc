/**
 * Lists the contenders of a suite, and starts each with its best known settings. A contender takes part if its
 * file exists: `bench/ours-SUITE.ts`, `bench/peers/NAME-SUITE.ts` or `bench/peers/NAME-SUITE.py`.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import type { Launch } from "./child.ts";

export const contenderNames = [
  "ours",
  "float32",
  "pytorch",
  "qvac",
  "jax-js",
  "tfjs",
  "sequential",
] as const;
export type ContenderName = (typeof contenderNames)[number];

export interface Entrant {
  readonly name: ContenderName;
  readonly file: string;
}

const run = promisify(execFile);

export function entrants(suite: string): Entrant[] {
  return contenderNames.flatMap((name) => {
    const folder = name === "ours" ? "bench" : "bench/peers";
    const file = [".ts", ".py"]
      .map((extension) => join(folder, `${name}-${suite}${extension}`))
      .find((candidate) => existsSync(candidate));
    return file === undefined ? [] : [{ name, file }];
  });
}

/** The process to start for an entrant, or the reason why it cannot be started here. */
export async function launchOf(
  entrant: Entrant,
  workDir: string,
  threads: number,
): Promise<Launch | string> {
  if (entrant.file.endsWith(".py")) return launchPython(entrant.file, workDir, threads);
  return {
    command: process.execPath,
    // The flags of this process let Node run TypeScript (scripts/run.mjs).
    args: [...process.execArgv, resolve("bench/contender-host.ts"), resolve(entrant.file), workDir],
    env: cleanEnvironment(),
  };
}

/** The caller's environment without variables that would change the settings of a contender. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const tuning = /^(OPENBLAS_|OMP_|GOMP_|MKL_|DNNL_|MALLOC_|ORT_|TF_|NODE_OPTIONS$|LD_PRELOAD$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !tuning.test(name)));
}

async function launchPython(
  file: string,
  workDir: string,
  threads: number,
): Promise<Launch | string> {
  // Debian installs python3-torch for its own interpreter, which need not be the first one in PATH.
  for (const command of ["/usr/bin/python3", "python3"]) {
    try {
      await run(command, ["-c", "import torch"]);
    } catch {
      continue;
    }
    const env = { ...cleanEnvironment(), ...pytorchSettings(threads) };
    return {
      command,
      args: [file, workDir],
      env: { ...env, ...(await fastestBlas(command, env)) },
    };
  }
  return "no Python with torch (Debian: apt install python3-torch)";
}

function pytorchSettings(threads: number): NodeJS.ProcessEnv {
  return {
    PYTHONDONTWRITEBYTECODE: "1",
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
    // The threads of OpenMP and OpenBLAS compete for the cores if they spin after their work:
    // 1.4 times slower.
    OMP_WAIT_POLICY: "PASSIVE",
    OPENBLAS_THREAD_TIMEOUT: "20",
    // Freed memory stays in the process: fresh pages every step cost more than the arithmetic on them.
    MALLOC_MMAP_THRESHOLD_: String(2 ** 34),
    MALLOC_TRIM_THRESHOLD_: String(2 ** 34),
    MALLOC_TOP_PAD_: String(2 ** 28),
  };
}

/** The number of probes per kernel, of which the best is used, since the machine may be busy during one of them. */
const probeRounds = 6;

/**
 * The fastest OpenBLAS kernels on this machine that compute correctly, which OpenBLAS does not always choose itself. Those that
 * OPENBLAS_CORETYPE names are taken without trying, which takes minutes on a busy machine.
 */
async function fastestBlas(python: string, env: NodeJS.ProcessEnv): Promise<NodeJS.ProcessEnv> {
  const named = process.env["OPENBLAS_CORETYPE"];
  if (named !== undefined) return { OPENBLAS_CORETYPE: named };
  let best: { speed: number; setting: NodeJS.ProcessEnv } = { speed: 0, setting: {} };
  for (let round = 0; round < probeRounds; round++) {
    for (const core of [undefined, "SkylakeX", "Cooperlake", "Zen", "Haswell"]) {
      const setting = core === undefined ? {} : { OPENBLAS_CORETYPE: core };
      try {
        // A kernel that the processor does not support crashes the probe.
        const probe = await run(python, ["bench/peers/probe_blas.py"], {
          env: { ...env, ...setting },
        });
        const speed = Number(probe.stdout);
        if (speed > best.speed) best = { speed, setting };
      } catch {
        continue;
      }
    }
  }
  return best.setting;
}
