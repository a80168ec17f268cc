/** What the drawings of models at full size measure: times of programs, and memory beside what was announced. */
import { readFileSync } from "node:fs";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Computation } from "../../src/pipelines/compute.ts";
import { type ImageModel, latentSize, stagesOf } from "../../src/pipelines/image-model.ts";
import { memoryPlan } from "../../src/pipelines/programs.ts";

export const seconds = (since: number): string => ((performance.now() - since) / 1000).toFixed(1);
const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;

/** The largest memory that this process has had, and what of it now are pages that belong to no file. */
function memory(): string {
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (field: string) => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)![1]) * 1024;
  return `largest ${gigabytes(of("VmHWM"))}, now ${gigabytes(of("VmRSS"))}, of which not of files ${gigabytes(of("RssAnon"))}`;
}

/** Prints the memory that a drawing of one picture announces for each of its stages. */
export function printAnnounced(
  model: ImageModel,
  size: { readonly width: number; readonly height: number },
  rows: number,
  compute: Computation,
): void {
  const load = { size: latentSize(size, model), texts: rows, rows, compute };
  for (const { stage, memory: announced } of memoryPlan(stagesOf(model), load)) {
    console.log(`announced for ${stage.name}: ${gigabytes(announced.total)}`);
  }
}

/** The CPU; it prints the time and the memory of each program that it compiles and of each run. */
export function printingBackend(): Backend {
  const watched = nodeBackend("cpu");
  return {
    device: "cpu",
    async compile(graph, options) {
      const began = performance.now();
      const program = await watched.compile(graph, options);
      console.log(`compiled in ${seconds(began)} s; ${memory()}`);
      return {
        ...program,
        async run(inputs, how) {
          const [since, before] = [performance.now(), process.cpuUsage()];
          const outputs = await program.run(inputs, how);
          const { user, system } = process.cpuUsage(before);
          const own = ((user + system) / 1e6).toFixed(1);
          console.log(`ran in ${seconds(since)} s, ${own} s of processor time; ${memory()}`);
          return outputs;
        },
      };
    },
  };
}
