/** The comparison of settings: what is compared, the grid of pictures so far, and whether it is being drawn; it outlives the view. */
import type { DrawnPicture } from "../../../src/pipelines/pipeline.ts";
import { drawOne } from "../drawing.ts";
import { model } from "../engine.ts";
import { type Settings, settings } from "../settings.ts";
import { store } from "../store.ts";

/** The settings that can be compared, with values to begin with. */
const axes = {
  steps: "1, 2, 4, 8, 20",
  sampler: "euler, heun, dpmpp-2m, euler-ancestral",
  guidance: "1, 2, 4",
  seed: "1, 2, 3, 4",
  prompt: "red apple; purple cat; 狗; ghost with a crown",
  /** Names of the server's models. */
  model: "",
  loraWeight: "0, 0.5, 1",
} as const satisfies { readonly [S in keyof Settings]?: string };

export type Axis = keyof typeof axes;

/** The axes that can be chosen now: models and LoRAs are the server's. */
export function axisNames(): readonly Axis[] {
  const { remote, served } = model.get();
  const possible: Readonly<Partial<Record<Axis, boolean>>> = {
    model: remote && served !== undefined && served.models.length > 1,
    loraWeight: remote && settings.get().lora !== "",
  };
  return (Object.keys(axes) as Axis[]).filter((axis) => possible[axis] ?? true);
}

/** The values that an axis begins with. */
export function firstValues(axis: Axis): string {
  if (axis !== "model") return axes[axis];
  return (model.get().served?.models ?? []).map(({ name }) => name).join("; ");
}

/** Axes of texts, which may have commas and spaces, so that semicolons separate them. */
export const isOfTexts = (axis: Axis) => axis === "prompt" || axis === "model";

/** More cells than this take minutes in a page. */
export const MOST_CELLS = 64;

export interface AxisChoice {
  readonly axis: Axis;
  readonly text: string;
}

interface Cell {
  readonly picture?: DrawnPicture;
  readonly problem?: string;
}

export interface Grid {
  readonly columns: AxisChoice;
  readonly rows: AxisChoice;
  readonly cells: readonly Cell[];
}

/** The values of a text; prompts are separated by semicolons, since they may have commas. */
export function valuesOf({ axis, text }: AxisChoice): readonly (string | number)[] {
  const parts = text
    .split(isOfTexts(axis) ? /[;；\n]/ : /[,，;；\s]+/)
    .map((part) => part.trim())
    .filter((part) => part !== "");
  return isOfTexts(axis) || axis === "sampler" ? parts : parts.map(Number).filter(Number.isFinite);
}

export interface ComparisonState {
  readonly columns: AxisChoice;
  readonly rows: AxisChoice;
  /** The one that was begun last, whose cells come in one by one. */
  readonly grid: Grid | undefined;
  readonly running: boolean;
  readonly problem: string | undefined;
}

export const comparison = store<ComparisonState>({
  columns: { axis: "steps", text: axes.steps },
  rows: { axis: "prompt", text: axes.prompt },
  grid: undefined,
  running: false,
  problem: undefined,
});

let stopping: AbortController | undefined;

export function cancelComparison(): void {
  stopping?.abort();
}

/** Draws the grid with the settings as they are now; one that is being drawn is cancelled. */
export async function startComparison(): Promise<void> {
  cancelComparison();
  const mine = new AbortController();
  stopping = mine;
  comparison.patch({ running: true, problem: undefined });
  let problem: string | undefined;
  try {
    await drawGrid(settings.get(), mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) problem = (error as Error).message;
  }
  if (stopping === mine) comparison.patch({ running: false, problem });
}

async function drawGrid(now: Settings, signal: AbortSignal): Promise<void> {
  const { columns, rows } = comparison.get();
  const cells: Cell[] = [];
  comparison.patch({ grid: { columns, rows, cells } });
  for (const down of valuesOf(rows)) {
    for (const across of valuesOf(columns)) {
      signal.throwIfAborted();
      const asked = { ...now, [columns.axis]: across, [rows.axis]: down };
      try {
        cells.push({ picture: await drawOne(asked, signal) });
      } catch (error) {
        signal.throwIfAborted();
        cells.push({ problem: (error as Error).message });
      }
      comparison.patch({ grid: { columns, rows, cells: [...cells] } });
    }
  }
}
