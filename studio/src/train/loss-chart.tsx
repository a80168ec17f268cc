/** The loss over the steps, as it falls, beside those of earlier trainings. */
import { useEffect, useRef } from "preact/hooks";
import UPlot from "uplot";
import { look, t } from "../language.ts";
import { useStore } from "../store.ts";
import { type Losses, type Run, runs, toggleRun } from "./runs.ts";

const HEIGHT = 240;
/** Share of the earlier value in the smoothed curve. */
const SMOOTHING = 0.9;

/** Colours of earlier runs, by their place in the list, as the styles name them. */
const runColours = ["--cool", "--good", "--warn", "--bad", "--muted", "--strong-line"] as const;

interface ChartProps {
  readonly losses: Losses;
  /** The name of the training, and whether it is over, so that it is among the earlier ones too. */
  readonly name: string;
  readonly isOver: boolean;
}

export function LossChart({ losses, name, isOver }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<UPlot | undefined>(undefined);
  const colours = useStore(look);
  const all = useStore(runs);
  // The training itself is remembered once it is over.
  const others = isOver && all[0]?.name === name ? all.slice(1) : all;
  const shown = others.filter((each) => each.shown);
  const names = shown.map(({ ended }) => ended).join();
  useEffect(() => {
    const element = place.current!;
    const made = new UPlot(
      optionsOf(
        element,
        shown.map((run) => colourOf(run, others)),
      ),
      dataOf(losses, shown),
      element,
    );
    chart.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [colours, names]);
  useEffect(() => chart.current?.setData(dataOf(losses, shown)), [losses]);
  const last = losses.at(-1);
  const label = last
    ? t("train.chart", { step: last[0], loss: last[1].toFixed(4) })
    : t("train.loss");
  return (
    <>
      <div class="chart" ref={place} role="img" aria-label={label} />
      {others.length > 0 && <RunsLegend others={others} />}
    </>
  );
}

/** Earlier trainings, each of which can be drawn beside this one. */
function RunsLegend({ others }: { readonly others: readonly Run[] }) {
  return (
    <fieldset class="runs">
      <legend class="visually-hidden">{t("train.runs")}</legend>
      {others.map((run) => (
        <label key={run.ended}>
          <input type="checkbox" checked={run.shown} onChange={() => toggleRun(run.ended)} />
          <i style={{ color: `var(${colourOf(run, others)})` }} aria-hidden="true" />
          {t("train.run", { name: run.name, loss: run.losses.at(-1)![1].toFixed(3) })}
        </label>
      ))}
    </fieldset>
  );
}

function colourOf(run: Run, others: readonly Run[]): string {
  return runColours[others.indexOf(run) % runColours.length]!;
}

/** @param earlier names of the colours of earlier runs */
function optionsOf(element: HTMLElement, earlier: readonly string[]): UPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  const curve = (name: string, width: number) => ({
    stroke: colour(name),
    width,
    points: { show: false },
    spanGaps: true,
  });
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: 3 } },
    axes: [
      { ...axis, label: t("train.step"), labelFont: axis.font },
      { ...axis, size: 56 },
    ],
    series: [
      {},
      curve("--curve-faint", 1),
      curve("--accent", 2),
      ...earlier.map((name) => curve(name, 1.5)),
    ],
  };
}

/** Steps, losses, their moving averages, and those of earlier runs. */
function dataOf(losses: Losses, others: readonly Run[]): UPlot.AlignedData {
  const own: UPlot.AlignedData = [
    losses.map(([step]) => step),
    losses.map(([, loss]) => loss),
    smoothed(losses),
  ];
  if (others.length === 0) return own;
  return UPlot.join([
    own,
    ...others.map((run): UPlot.AlignedData => [
      run.losses.map(([step]) => step),
      smoothed(run.losses),
    ]),
  ]);
}

/** The moving average of the losses so far, weighted by how recent they are. */
function smoothed(losses: Losses): number[] {
  let [sum, weight] = [0, 0];
  return losses.map(([, loss]) => {
    sum = SMOOTHING * sum + loss;
    weight = SMOOTHING * weight + 1;
    return sum / weight;
  });
}
