/** The memory that this process may still take before the system ends it. */
import { readFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";

/** Reads a file of the system; undefined if it does not exist. */
type ReadFile = (path: string) => string | undefined;

/** Returns the free memory of the machine in bytes, or less if the process is in a container with a limit. */
export function availableMemory(): number {
  // macOS counts only memory that was never used as free, though it frees the rest on demand.
  const machine = process.platform === "darwin" ? os.totalmem() : os.freemem();
  return Math.min(machine, groupMemory());
}

/** The names of files in the two versions of Linux control groups. */
const versions = [
  {
    entry: /^0::(.*)$/m,
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    cached: /^(?:in)?active_file (\d+)$/gm,
  },
  {
    entry: /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m,
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: /^total_(?:in)?active_file (\d+)$/gm,
  },
] as const;

/** Returns the memory left under the strictest limit of the process's control group and its parents; Infinity without a limit. */
export function groupMemory(read: ReadFile = readFile): number {
  const groups = read("/proc/self/cgroup") ?? "";
  let least = Infinity;
  for (const { entry, root, limit, usage, cached } of versions) {
    const path = entry.exec(groups)?.[1];
    if (path === undefined) continue;
    const parts = path.split("/").filter((part) => part !== "" && part !== "..");
    for (let depth = parts.length; depth >= 0; depth--) {
      const group = join(root, ...parts.slice(0, depth));
      const most = Number(read(join(group, limit)) ?? NaN);
      const used = Number(read(join(group, usage)) ?? NaN);
      // A file may contain "max", which means no limit.
      if (Number.isNaN(most) || Number.isNaN(used)) continue;
      // Cached pages of files count as used, but are freed on demand.
      const stat = read(join(group, "memory.stat")) ?? "";
      const room = [...stat.matchAll(cached)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
      least = Math.min(least, Math.max(0, most - used + room));
    }
  }
  return least;
}

function readFile(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
