/** Compare: a grid of pictures with the same seed, over two settings. */
import { pictureGrid } from "../../../src/pictures/grid.ts";
import { toPng } from "../../../src/pictures/png.ts";
import { model } from "../engine.ts";
import { t } from "../language.ts";
import { Field, Select } from "../parts/fields.tsx";
import { download } from "../parts/files.ts";
import { Pixels } from "../parts/pixels.tsx";
import { settings } from "../settings.ts";
import { useStore } from "../store.ts";
import type { StringKey } from "../strings.ts";
import {
  type Axis,
  type AxisChoice,
  axisNames,
  cancelComparison,
  comparison,
  firstValues,
  type Grid,
  isOfTexts,
  MOST_CELLS,
  startComparison,
  valuesOf,
} from "./comparison.ts";

export function CompareView() {
  const { columns, rows, grid, running, problem } = useStore(comparison);
  const now = useStore(settings);
  const count = valuesOf(columns).length * valuesOf(rows).length;
  return (
    <div class="compare">
      <h1>{t("compare.title")}</h1>
      <p class="lead">{t("compare.lead", { prompt: now.prompt, seed: now.seed })}</p>
      <div class="card axes">
        <AxisFields
          label={t("compare.columns")}
          value={columns}
          onInput={(value) => comparison.patch({ columns: value })}
        />
        <AxisFields
          label={t("compare.rows")}
          value={rows}
          onInput={(value) => comparison.patch({ rows: value })}
        />
        <div class="actions">
          <button
            type="button"
            class="primary"
            disabled={running || count === 0 || count > MOST_CELLS || columns.axis === rows.axis}
            onClick={() => void startComparison()}
          >
            {t("compare.draw", { count })}
          </button>
          {running && (
            <button type="button" onClick={cancelComparison}>
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
