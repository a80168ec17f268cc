/** Lines as a model draws them. */
import { canonical } from "../data/latents/folder-node.ts";
import { PatchwiseError } from "../engine/errors.ts";
import type { PictureMetadata } from "../pictures/metadata.ts";
import type { Pipeline } from "../pipelines/pipeline.ts";
import { type DrawnBy, recordOf } from "./drawer.ts";
import type { PromptLine } from "./lines.ts";

/** A line that the model can draw. */
export interface LineTask {
  readonly line: PromptLine;
  /** Name of its file. */
  readonly file: string;
  /** The settings that its file records. */
  readonly record: PictureMetadata;
}

/** A line whose picture there is none of, and why. */
export interface LineFailure {
  readonly line: PromptLine;
  readonly error: string;
}

export interface PlannedLines {
  readonly tasks: readonly LineTask[];
  readonly failures: readonly LineFailure[];
  /** Sentences about parts of lines that have no effect. */
  readonly warnings: readonly string[];
}

/** Checks each line with a model and fills in the model's own settings. */
export function plannedLines(
  lines: readonly PromptLine[],
  pipeline: Pipeline,
  by: DrawnBy,
): PlannedLines {
  const tasks: LineTask[] = [];
  const failures: LineFailure[] = [];
  const warnings: string[] = [];
  for (const line of lines) {
    try {
      const { frames, warnings: own } = pipeline.settings(line.request);
      const file = `${line.name}.${frames === undefined ? "png" : "webp"}`;
      tasks.push({ line, file, record: recordOf(pipeline, line.request, by) });
      warnings.push(...own.map((warning) => `Line ${line.number}: ${warning}`));
    } catch (error) {
      failures.push(failureOf(line, error));
    }
  }
  return { tasks, failures, warnings };
}

/** @throws the error itself if it is a bug */
export function failureOf(line: PromptLine, error: unknown): LineFailure {
  if (error instanceof PatchwiseError) return { line, error: error.message };
  throw error;
}

/** Returns true if a picture was drawn with the settings of a task, by whatever version. */
export function isDrawnAs(found: object, { record }: LineTask): boolean {
  const comparable = (metadata: object) => canonical({ ...metadata, version: undefined });
  // Through JSON, as files hold it.
  return comparable(found) === comparable(JSON.parse(JSON.stringify(record)) as object);
}

/** The tasks in an order in which those of one size and number of steps are neighbours, which share the runs of the network. */
export function bySize(tasks: readonly LineTask[]): LineTask[] {
  const keyOf = ({ record: { width, height, steps, ...rest } }: LineTask) =>
    [width * height * (Number((rest as { frames?: number }).frames) || 1), width, steps] as const;
  return tasks.toSorted((a, b) => {
    const [first, second] = [keyOf(a), keyOf(b)];
    const at = first.findIndex((value, i) => value !== second[i]);
    return at < 0 ? 0 : first[at]! - second[at]!;
  });
}
