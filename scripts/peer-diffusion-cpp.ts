/**
 * The time of one step of FLUX.2 [klein] 4B at 512×512, and its memory, by programs on stable-diffusion.cpp, beside Patchwise on the same
 * files, one after another. `full-size-gguf.ts` has written the files before. The npm package @qvac/diffusion-cpp is installed apart:
 *
 *     mkdir peer && cd peer && npm install --ignore-scripts bare@1.31.2 @qvac/diffusion-cpp@0.25.0
 *     node scripts/run.mjs scripts/peer-diffusion-cpp.ts FOLDER Q8_0 --qvac peer [--sd-cli BUILD/bin/sd-cli] [--ours] [--int8]
 *
 * A step is the time between the first and the second step's end, so that loading and reading the prompt do not count.
 */
import { spawn } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { UsageError } from "../src/engine/errors.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    qvac: { type: "string" },
    "sd-cli": { type: "string" },
    ours: { type: "boolean" },
    int8: { type: "boolean" },
  },
});
const [folder, type = "Q8_0"] = positionals;
if (folder === undefined)
  throw new UsageError("Give the folder that full-size-gguf.ts has written.");
const file = (part: string) => path.resolve(folder, part);
const files = {
  model: file(`diffusion_models/flux-2-klein-4b-${type}.gguf`),
  llm: file("text_encoders/qwen3-4b-Q4_K.gguf"),
  vae: file("vae/flux2-vae.gguf"),
};
const threads = availableParallelism();

/** Runs under Bare: draws two steps, and prints a line for each output that is no picture. */
const bareProgram = `
const Draw = require('@qvac/diffusion-cpp')
const files = ${JSON.stringify(files)}
async function main () {
  const model = new Draw({ files, config: { threads: ${threads}, device: 'cpu', prediction: 'flux2_flow', mmap: true, verbosity: 2 }, opts: { stats: true }, logger: console })
  await model.load()
  console.log('loaded')
  const response = await model.run({ prompt: 'a red cat', width: 512, height: 512, steps: 2, cfg_scale: 1, seed: 1 })
  await response.onUpdate((data) => { if (typeof data === 'string') console.log('progress ' + data) }).await()
  await model.unload()
}
main().catch((error) => { console.error(error); Bare.exit(1) })
`;

interface Watched {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  /** Whether a line of its output says that a step, counted from 1, is done. */
  readonly stepIn: (line: string) => number | undefined;
}

/** Runs a program until its second step is done, and prints the time of that step and the largest memory. */
async function watch({ name, command, args, cwd, stepIn }: Watched): Promise<void> {
  const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
  const began = performance.now();
  const ends = new Map<number, number>();
  let last = "";
  let memory = { whole: 0, own: 0 };
  const look = setInterval(() => {
    memory = largest(memory, child.pid!);
  }, 200);
  const read = (chunk: Buffer) => {
    for (const line of chunk.toString().split(/[\r\n]+/)) {
      if (line.trim() !== "") last = line;
      const step = stepIn(line);
      if (step === undefined || ends.has(step)) continue;
      ends.set(step, performance.now());
      if (step === 2) child.kill("SIGKILL");
    }
  };
  child.stdout.on("data", read);
  child.stderr.on("data", read);
  await new Promise((resolve) => child.once("close", resolve));
  clearInterval(look);
  const [first, second] = [ends.get(1), ends.get(2)];
  const took = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  console.log(
    first === undefined || second === undefined
      ? `${name}: no second step; its last line: ${last}`
      : `${name}: a step ${took(second - first)}; the first ended ${took(first - began)} after the start; most memory ${gigabytes(memory.whole)}, of which not of files ${gigabytes(memory.own)}`,
  );
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;

/** The largest memory of a process so far, and of it the pages that belong to no file. */
function largest(before: { whole: number; own: number }, pid: number): typeof before {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const of = (field: string) =>
      Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) * 1024;
    return {
      whole: Math.max(before.whole, of("VmHWM")),
      own: Math.max(before.own, of("RssAnon")),
    };
  } catch {
    return before;
  }
}

const numbered = (pattern: RegExp) => (line: string) => {
  const found = pattern.exec(line)?.[1];
  return found === undefined ? undefined : Number(found);
};

if (values.qvac !== undefined) {
  const program = path.resolve(values.qvac, "draw-two-steps.js");
  writeFileSync(program, bareProgram);
  // The program itself: `.bin/bare` is a script that makes it executable and starts it, whose end and memory say nothing of it.
  const bare = path.resolve(
    values.qvac,
    `node_modules/bare-runtime-${process.platform}-${process.arch}/bin/bare`,
  );
  chmodSync(bare, 0o755);
  await watch({
    name: `@qvac/diffusion-cpp ${type}`,
    command: bare,
    args: [program],
    cwd: path.resolve(values.qvac),
    stepIn: numbered(/"step":\s*(\d+)/),
  });
}
if (values["sd-cli"] !== undefined) {
  await watch({
    name: `sd-cli ${type}`,
    command: path.resolve(values["sd-cli"]),
    args: [
      "--diffusion-model",
      files.model,
      "--llm",
      files.llm,
      "--vae",
      files.vae,
      "-o",
      path.join(path.dirname(path.resolve(values["sd-cli"])), "drawn.png"),
      ..."-p|a red cat|-W|512|-H|512|--steps|2|--cfg-scale|1|--sampling-method|euler|--diffusion-fa|-v".split(
        "|",
      ),
      "-t",
      String(threads),
    ],
    stepIn: numbered(/\b(\d+)\/2 - /),
  });
}
for (const compute of [values.ours ? "float32" : "", values.int8 ? "int8" : ""]) {
  if (compute === "") continue;
  await watch({
    name: `Patchwise ${type}, ${compute}`,
    command: process.execPath,
    args: ["scripts/run.mjs", "scripts/full-size-gguf.ts", folder, type, compute, "2"],
    stepIn: numbered(/^step (\d+) /),
  });
}
