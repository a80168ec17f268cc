/**
 * A step of the suite `sd3` by `@qvac/diffusion-cpp` (stable-diffusion.cpp) under `bare`, on the file that ours reads, once for each type of
 * weights. It is not installed with this package: PATCHWISE_QVAC names a folder where
 * `npm install @qvac/diffusion-cpp bare` was run.
 *
 * Without T5 it draws with 154 tokens of text, where ours has 333. A step is the time between the reports of its
 * progress before the first and after the first step, with guidance; it is stopped then. What it draws is not compared.
 */
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Absent, type Contender } from "../contender.ts";
import { sd3Files } from "../sd3-file.ts";
import type { SD3Work } from "../sd3-work.ts";
import { readWork } from "../tensor-file.ts";

const types = ["q8_0", "q4_0", "f16"] as const;

const script = `
const Draw = require("@qvac/diffusion-cpp");
const [files, config, request] = JSON.parse(Bare.argv[2]);
const model = new Draw({ files, config, logger: console });
async function main() {
  await model.load();
  const response = await model.run(request);
  await response.onUpdate((data) => { if (typeof data === "string") console.log("progress " + data); }).await();
}
main().catch((error) => { console.log("failed " + error.message); Bare.exit(1); });
`;

const contender: Contender = {
  async setup(workDir) {
    const folder = process.env["PATCHWISE_QVAC"];
    if (folder === undefined || !existsSync(join(folder, "node_modules/@qvac/diffusion-cpp"))) {
      throw new Absent(
        "run `npm install @qvac/diffusion-cpp bare` in an empty folder outside of this package, and name the folder in PATCHWISE_QVAC",
      );
    }
    const work = readWork(workDir) as SD3Work;
    const files = await sd3Files(workDir, work);
    const main = join(folder, "patchwise-step.js");
    writeFileSync(main, script);
    const side = 16 * work.side;
    const stepOf = (type: (typeof types)[number]): Promise<number> => {
      const config = {
        threads: work.threads,
        device: "cpu",
        type,
        prediction: "flow",
        vae_decode_only: true,
        verbosity: 2,
      };
      const request = {
        prompt: "a cat",
        width: side,
        height: side,
        steps: 4,
        cfg_scale: 4,
        seed: 1,
      };
      const given = JSON.stringify([files, config, request]);
      return timedStep(folder, [main, given]);
    };
    return {
      settings: `@qvac/diffusion-cpp under bare, ${work.threads} threads, ${types.join(", ")}; one step of each`,
      async step() {
        const parts: Record<string, number> = {};
        for (const type of types) parts[type] = await stepOf(type);
        return { ms: Math.min(...Object.values(parts)), value: 0, comparable: false, parts };
      },
    };
  },
};

/** Runs bare until its second report of progress, and returns the milliseconds between the two. */
function timedStep(cwd: string, args: readonly string[]): Promise<number> {
  // In a group of its own, since `bare` is a script that starts the program.
  const child = spawn(join(cwd, "node_modules/.bin/bare"), args, {
    cwd,
    stdio: "pipe",
    detached: true,
  });
  const said: string[] = [];
  return new Promise((resolve, reject) => {
    let begun: number | undefined;
    child.once("error", reject);
    child.once("close", () => reject(new Error(`bare ended early: ${said.join(" | ")}`)));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        said.push(line.slice(-200));
        if (said.length > 8) said.shift();
        if (!line.startsWith("progress ")) return;
        const now = performance.now();
        if (begun === undefined) {
          begun = now;
          return;
        }
        child.removeAllListeners("close");
        process.kill(-child.pid!, "SIGKILL");
        resolve(now - begun);
      });
    }
  });
}

export default contender;
