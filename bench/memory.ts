/** Measures the memory of a running process. */
import { readFileSync } from "node:fs";

const intervalMs = 100;

export interface MemoryWatch {
  /** The peak so far in MB; null if the system has no /proc. */
  peakMb(): number | null;
  end(): void;
}

/**
 * Watches a process and its children. Pages of mapped files are excluded, because the system can reclaim them.
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
