/** Which waiting jobs are drawn next: in the order in which they came, as far as the processes have room. */
import type { DrawingPool } from "./drawing-pool.ts";
import type { DrawRecord } from "./job-store.ts";

interface Waiting {
  readonly record: Pick<DrawRecord, "crashes" | "settings">;
  /** The model with its LoRAs, which a process holds. */
  readonly key: string;
}

/** The places that a job takes in its process: one a picture, and all of them if it may end the process, so that it is alone. */
export function placesOf({ record: { crashes, settings } }: Waiting): number {
  return crashes > 0 ? Infinity : settings.count;
}

/**
 * @param waiting the oldest first
 * @param batch places of a process; a job that needs more is drawn alone
 */
export function nextJobs<W extends Waiting>(
  waiting: readonly W[],
  { processes, hasRoom }: Pick<DrawingPool, "processes" | "hasRoom">,
  batch: number,
): W[] {
  const chosen: W[] = [];
  const taken = new Map(
    [...processes].map(([key, { jobs }]) => {
      const places = [...jobs.values()].reduce((sum, each) => sum + each, 0);
      return [key, places] as const;
    }),
  );
  /** Keys whose process takes no more: jobs do not overtake others of their kind. */
  const full = new Set<string>();
  for (const job of waiting) {
    const { key } = job;
    if (full.has(key)) continue;
    if (!taken.has(key)) {
      // One process is started at a time. Without room, later jobs wait too, so that a process becomes idle and makes room.
      if (taken.size > processes.size || !hasRoom()) break;
      taken.set(key, 0);
    }
    const before = taken.get(key)!;
    const places = placesOf(job);
    if (before > 0 && before + places > batch) {
      full.add(key);
      continue;
    }
    chosen.push(job);
    taken.set(key, before + places);
  }
  return chosen;
}
