/** How much memory this process may still take before the system ends it. */
import { readFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";

/** The content of a file of the system; undefined where there is none. */
type ReadFile = (path: string) => string | undefined;

/** Bytes: what the machine has left, or less where the process is in a group (a container) with a limit. */
export function availableMemory(): number {
  // macOS counts as free only what nobody has used yet, though it gives back the rest when asked.
  const machine = process.platform === "darwin" ? os.totalmem() : os.freemem();
  return Math.min(machine, groupMemory());
}

/** What the two versions of Linux' control groups call their files. */
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

/** What is left of the smallest limit on the way up from the process's group; Infinity where there is none. */
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
      // "max" is no number.
      if (Number.isNaN(most) || Number.isNaN(used)) continue;
      // Pages of files count as used, but make room.
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
