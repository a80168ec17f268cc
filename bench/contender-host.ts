/**
 * The child process around a contender written in TypeScript: `contender-host.ts MODULE WORK_DIR`.
 * The protocol is described in `contender.ts`.
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import type { Contender } from "./contender.ts";

// Libraries log to the console; stdout belongs to the protocol.
console.log = console.info = console.debug = console.error;

function reply(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

/**
 * Highest resident sets of this process and of those that it started, in MB. `ru_maxrss` would also count the parent
 * before exec.
 */
function peakRssMb(): number {
  try {
    return highWaterMb(process.pid);
  } catch {
    // No /proc outside Linux.
    return process.resourceUsage().maxRSS / 1024;
  }
}

function highWaterMb(pid: number): number {
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
  return children
    .filter((child) => child.trim() !== "")
    .reduce((sum, child) => sum + highWaterMb(Number(child)), Number(kilobytes) / 1024);
}

async function serve(modulePath: string, workDir: string): Promise<void> {
  const module = (await import(pathToFileURL(modulePath).href)) as { default: Contender };
  const contender = await module.default.setup(workDir);
  reply({ settings: contender.settings });
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === "step") {
      reply(await contender.step());
    } else if (line === "quit") {
      reply({ peakRssMb: peakRssMb() });
      break;
    }
  }
}

const [modulePath, workDir] = process.argv.slice(2);
if (modulePath === undefined || workDir === undefined) {
  throw new Error("The contender host needs two arguments: a module and a work folder.");
}
try {
  await serve(modulePath, workDir);
  process.exit(0);
} catch (error) {
  const missing = /Cannot find (?:package|module) '([^']+)'/.exec(String(error))?.[1];
  if (missing === undefined) throw error;
  reply({ absent: `the package ${missing} is not installed` });
  process.exit(0);
}
