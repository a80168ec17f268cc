/** Measures the machine's peak rate of fused multiply-adds with a small C program. */
import { execFile } from "node:child_process";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface FmaPeak {
  /** GFLOP/s in float32 on all threads together. */
  measure(): Promise<number>;
}

/** Compiles `bench/fma-peak.c` into `workDir`; returns the reason as text if that fails. */
export async function compileFmaPeak(workDir: string, threads: number): Promise<FmaPeak | string> {
  const program = join(workDir, "fma-peak");
  const source = resolve("bench/fma-peak.c");
  try {
    await run("cc", ["-O3", "-march=native", "-pthread", source, "-o", program]);
  } catch (error) {
    return `cc -march=native does not compile bench/fma-peak.c here (${firstLine(error)})`;
  }
  return {
    measure: async () => Number((await run(program, [String(threads)])).stdout),
  };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}
