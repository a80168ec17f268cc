/** Compare: a grid of pictures with the same seed, over two settings. */
import { useRef, useState } from "preact/hooks";
import { pictureGrid } from "../../../src/pictures/grid.ts";
import { toPng } from "../../../src/pictures/png.ts";
import type { DrawnPicture } from "../../../src/pipelines/pipeline.ts";
import { drawOne } from "../drawing.ts";
import { model } from "../engine.ts";
import { t } from "../language.ts";
import { Field, Select } from "../parts/fields.tsx";
import { download } from "../parts/files.ts";
import { Pixels } from "../parts/pixels.tsx";
import { type Settings, settings } from "../settings.ts";
import { useStore } from "../store.ts";
import type { StringKey } from "../strings.ts";

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

type Axis = keyof typeof axes;

/** The axes that can be chosen now: models and LoRAs are the server's. */
function axisNames(): readonly Axis[] {
  const { remote, served } = model.get();
  const possible: Readonly<Partial<Record<Axis, boolean>>> = {
    model: remote && served !== undefined && served.models.length > 1,
    loraWeight: remote && settings.get().lora !== "",
  };
  return (Object.keys(axes) as Axis[]).filter((axis) => possible[axis] ?? true);
}

/** The values that an axis begins with. */
function firstValues(axis: Axis): string {
  if (axis !== "model") return axes[axis];
  return (model.get().served?.models ?? []).map(({ name }) => name).join("; ");
}

/** Axes of texts, which may have commas and spaces, so that semicolons separate them. */
const isOfTexts = (axis: Axis) => axis === "prompt" || axis === "model";

/** More cells than this take minutes in a page. */
const MOST_CELLS = 64;

interface AxisChoice {
  readonly axis: Axis;
  readonly text: string;
}

interface Cell {
  readonly picture?: DrawnPicture;
  readonly problem?: string;
}

interface Grid {
  readonly columns: AxisChoice;
  readonly rows: AxisChoice;
  readonly cells: readonly Cell[];
}

/** The values of a text; prompts are separated by semicolons, since they may have commas. */
function valuesOf({ axis, text }: AxisChoice): readonly (string | number)[] {
  const parts = text
    .split(isOfTexts(axis) ? /[;；\n]/ : /[,，;；\s]+/)
    .map((part) => part.trim())
    .filter((part) => part !== "");
  return isOfTexts(axis) || axis === "sampler" ? parts : parts.map(Number).filter(Number.isFinite);
}

export function CompareView() {
  const [columns, setColumns] = useState<AxisChoice>({ axis: "steps", text: axes.steps });
  const [rows, setRows] = useState<AxisChoice>({ axis: "prompt", text: axes.prompt });
  const [grid, setGrid] = useState<Grid>();
  const [running, setRunning] = useState(false);
  const [problem, setProblem] = useState<string>();
  const stopping = useRef<AbortController>(undefined);
  const now = useStore(settings);
  const count = valuesOf(columns).length * valuesOf(rows).length;
  const start = async () => {
    stopping.current?.abort();
    const { signal } = (stopping.current = new AbortController());
    setRunning(true);
    setProblem(undefined);
    try {
      await compare({ columns, rows, now, signal }, setGrid);
    } catch (error) {
      if (!signal.aborted) setProblem((error as Error).message);
    }
    setRunning(false);
  };
  return (
    <div class="compare">
      <h1>{t("compare.title")}</h1>
      <p class="lead">{t("compare.lead", { prompt: now.prompt, seed: now.seed })}</p>
      <div class="card axes">
        <AxisFields label={t("compare.columns")} value={columns} onInput={setColumns} />
        <AxisFields label={t("compare.rows")} value={rows} onInput={setRows} />
        <div class="actions">
          <button
            type="button"
            class="primary"
            disabled={running || count === 0 || count > MOST_CELLS || columns.axis === rows.axis}
            onClick={() => void start()}
          >
            {t("compare.draw", { count })}
          </button>
          {running && (
            <button type="button" onClick={() => stopping.current?.abort()}>
              {t("cancel")}
            </button>
          )}
          {grid && !running && (
            <button type="button" onClick={() => void save(grid)}>
              {t("compare.save")}
            </button>
          )}
        </div>
        <p class="hint" role="status">
          {columns.axis === rows.axis
            ? t("compare.same")
            : count > MOST_CELLS
              ? t("compare.many", { most: MOST_CELLS })
              : problem}
        </p>
      </div>
      {grid && <GridTable grid={grid} />}
    </div>
  );
}

interface AxisFieldsProps {
  readonly label: string;
  readonly value: AxisChoice;
  readonly onInput: (value: AxisChoice) => void;
}

function AxisFields({ label, value, onInput }: AxisFieldsProps) {
  return (
    <fieldset>
      <legend>{label}</legend>
      <Select
        label={t("compare.axis")}
        value={value.axis}
        options={axisNames().map((axis) => [axis, t(`axis.${axis}` as StringKey)])}
        onInput={(axis) => onInput({ axis: axis as Axis, text: firstValues(axis as Axis) })}
      />
      <Field
        label={t("compare.values")}
        {...(isOfTexts(value.axis) && { hint: t("compare.semicolons") })}
      >
        {(id) => (
          <textarea
            id={id}
            rows={2}
            value={value.text}
            onInput={({ currentTarget }) => onInput({ ...value, text: currentTarget.value })}
          />
        )}
      </Field>
    </fieldset>
  );
}

interface Comparison {
  readonly columns: AxisChoice;
  readonly rows: AxisChoice;
  readonly now: Settings;
  readonly signal: AbortSignal;
}

async function compare(
  { columns, rows, now, signal }: Comparison,
  onGrid: (grid: Grid) => void,
): Promise<void> {
  const cells: Cell[] = [];
  onGrid({ columns, rows, cells: [] });
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
      onGrid({ columns, rows, cells: [...cells] });
    }
  }
}

function GridTable({ grid: { columns, rows, cells } }: { readonly grid: Grid }) {
  const across = valuesOf(columns);
  return (
    <div class="table-scroll card" tabIndex={0} role="region" aria-label={t("compare.title")}>
      <table class="xy">
        <thead>
          <tr>
            <td />
            {across.map((value) => (
              <th key={value} scope="col">
                <small>{t(`axis.${columns.axis}` as StringKey)}</small>
                {value}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {valuesOf(rows).map((value, row) => (
            <tr key={value}>
              <th scope="row">
                <small>{t(`axis.${rows.axis}` as StringKey)}</small>
                {value}
              </th>
              {across.map((other, column) => {
                const cell = cells[row * across.length + column];
                const label = `${value}, ${other}`;
                return (
                  <td key={other}>
                    {cell?.picture ? (
                      <Pixels picture={cell.picture} label={label} />
                    ) : cell?.problem === undefined ? (
                      <span class="pending" />
                    ) : (
                      <p class="problem">{cell.problem}</p>
                    )}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

async function save({ columns, cells }: Grid): Promise<void> {
  const pictures = cells.flatMap(({ picture }) => picture ?? []);
  const sheet = pictureGrid(pictures, valuesOf(columns).length);
  download(await toPng(sheet), `${model.get().facts?.name ?? "model"}-grid.png`, "image/png");
}
