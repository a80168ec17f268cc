/** How much memory a process takes while it works, seen from outside. */
import { readFileSync } from "node:fs";

const intervalMs = 100;

export interface MemoryWatch {
  /** The most that was seen, in MB; null where the system has no /proc. */
  peakMb(): number | null;
  end(): void;
}

/**
 * Watches a process and those that it starts. Pages of files do not count: the system can take them back, and a file of
 * weights that is mapped once would count as much as weights in memory.
 */
export function watchMemory(pid: number): MemoryWatch {
  let most: number | null = null;
  const look = () => {
    const now = ownMb(pid);
    if (now !== null) most = Math.max(most ?? 0, now);
  };
  look();
  const timer = setInterval(look, intervalMs);
  return { peakMb: () => (look(), most), end: () => clearInterval(timer) };
}

function ownMb(pid: number): number | null {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
    const own = ["RssAnon", "RssShmem"].map((name) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0),
    );
    const started = children.filter((child) => child.trim() !== "");
    return started.reduce(
      (sum, child) => sum + (ownMb(Number(child)) ?? 0),
      own.reduce((a, b) => a + b) / 1024,
    );
  } catch {
    return null;
  }
}
