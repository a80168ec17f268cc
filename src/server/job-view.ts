/** Jobs as they are shown over HTTP. */
import type { JobRecord } from "./job-store.ts";
import { sampleFile } from "./job-store.ts";
import type { AnyJob, TrainingSamples } from "./wire.ts";

/** The sources of a job's view. */
export interface Viewed {
  readonly record: JobRecord;
  readonly step: number;
  readonly steps: number;
}

export const isOver = ({ state }: Pick<JobRecord, "state">): boolean =>
  state === "succeeded" || state === "failed" || state === "cancelled";

/** The number of steps that a job has from the start. */
export function stepsOf(record: JobRecord): number {
  return record.kind === "draw" ? record.settings.steps : record.config.training.steps!;
}

/** Positions by lists of open jobs, so that those of a list of thousands are counted once and not once a job. */
const counted = new WeakMap<readonly Viewed[], ReadonlyMap<string, number>>();

/** How many jobs of its kind are before each one that is queued, by its id. */
function positionsIn(open: readonly Viewed[]): ReadonlyMap<string, number> {
  const known = counted.get(open);
  if (known) return known;
  const positions = new Map<string, number>();
  const before = { draw: 0, train: 0 };
  for (const { record } of open.toSorted((a, b) => a.record.created - b.record.created)) {
    if (record.state === "queued") positions.set(record.id, before[record.kind]++);
  }
  counted.set(open, positions);
  return positions;
}

/** @param open the jobs that are not over; one list for all views between two changes */
export function jobView({ record, step, steps }: Viewed, open: readonly Viewed[]): AnyJob {
  const { id, state, created, started, ended, error } = record;
  const common = {
    id,
    state,
    created,
    started,
    ended,
    step,
    steps,
    ...(state === "queued" && { position: positionsIn(open).get(id) }),
    error,
  };
  if (record.kind === "draw") {
    const { kind, model, loras, settings, outputFormat, pictures } = record;
    return {
      kind,
      ...common,
      model,
      loras,
      settings,
      outputFormat,
      pictures: pictures.map(({ seed, width, height }, i) => ({
        url: `/api/jobs/${id}/pictures/${i}`,
        seed,
        width,
        height,
      })),
    };
  }
  const { kind, name, config, pictures, samples, files } = record;
  return {
    kind,
    ...common,
    name,
    config,
    pictures,
    samples: samples.map((each) => samplesView(id, each)),
    files: files.map((file) => ({ name: file, url: `/api/jobs/${id}/files/${file}` })),
  };
}

/** Samples of a training with the paths of their files. */
export function samplesView(
  id: string,
  {
    step,
    count,
    of,
  }: { readonly step: number; readonly count: number; readonly of: readonly string[] },
): TrainingSamples {
  const urls = Array.from(
    { length: count },
    (_, i) => `/api/jobs/${id}/samples/${sampleFile(step, i)}`,
  );
  return { step, urls, of };
}

/**
 * Seconds until a place is likely to be free: what jobs took on average, for one of them.
 *
 * @param succeeded how many did
 * @param seconds that they took, added up
 */
export function retryAfter(open: readonly Viewed[], succeeded: number, seconds: number): number {
  const mean = succeeded === 0 ? 5 : seconds / succeeded;
  const running = open.filter(({ record }) => record.state === "running").length;
  return Math.min(300, Math.max(1, Math.ceil(mean / Math.max(1, running))));
}
