/** Measures the memory and the processor time of a running process and its children. */
import { readFileSync } from "node:fs";

const intervalMs = 100;

export interface MemoryWatch {
  /** The peak so far in MB; null if the system has no /proc. */
  peakMb(): number | null;
  /** The same with the pages of mapped files that were resident, and not less than the peak that the system itself kept of the process. */
  peakTotalMb(): number | null;
  end(): void;
}

/**
 * Watches a process and its children. Pages of mapped files are counted apart, because the system can reclaim them.
 */
export function watchMemory(pid: number): MemoryWatch {
  let [most, mostInAll]: (number | null)[] = [null, null];
  const look = () => {
    const [now, all] = [residentMb(pid, ofNoFile), residentMb(pid, [...ofNoFile, "RssFile"])];
    if (now !== null) most = Math.max(most ?? 0, now);
    if (all !== null) mostInAll = Math.max(mostInAll ?? 0, all, peakOfProcess(pid));
  };
  look();
  const timer = setInterval(look, intervalMs);
  return {
    peakMb: () => (look(), most ?? null),
    peakTotalMb: () => (look(), mostInAll ?? null),
    end: () => clearInterval(timer),
  };
}

/** Resident pages that belong to no file. */
const ofNoFile = ["RssAnon", "RssShmem"];

function residentMb(pid: number, kinds: readonly string[]): number | null {
  return sumOfTree(pid, (folder) => {
    const status = readFileSync(`${folder}/status`, "utf8");
    return kinds.map((name) => statusMb(status, name)).reduce((a, b) => a + b);
  });
}

/** The largest resident set of a process in MB, pages of files included, which the system keeps between looks, too. */
function peakOfProcess(pid: number): number {
  try {
    return statusMb(readFileSync(`/proc/${pid}/status`, "utf8"), "VmHWM");
  } catch {
    return 0;
  }
}

/** A line of /proc/PID/status in MB; 0 if there is none. */
function statusMb(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0) / 1024;
}

/** Linux counts processor time in hundredths of a second for programs, whatever its own clock. */
const msOfTick = 10;

/** Processor time that a process and its children have taken so far in ms, in steps of 10; null if the system has no /proc. */
export function processorMs(pid: number): number | null {
  return sumOfTree(pid, (folder) => {
    // The name of the program, in brackets, may hold spaces.
    const fields = readFileSync(`${folder}/stat`, "utf8").split(") ").at(-1)!.split(" ");
    return msOfTick * (Number(fields[11]) + Number(fields[12]));
  });
}

function sumOfTree(pid: number, figure: (folder: string) => number): number | null {
  try {
    const own = figure(`/proc/${pid}`);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
    const started = children.filter((child) => child.trim() !== "");
    return started.reduce((sum, child) => sum + (sumOfTree(Number(child), figure) ?? 0), own);
  } catch {
    return null;
  }
}
