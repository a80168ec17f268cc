/** The loss over the steps, as it falls. */
import { useEffect, useRef } from "preact/hooks";
import UPlot from "uplot";
import { look, t } from "../language.ts";
import { useStore } from "../store.ts";

type Losses = readonly (readonly [step: number, loss: number])[];

const HEIGHT = 240;
/** Share of the earlier value in the smoothed curve. */
const SMOOTHING = 0.9;

export function LossChart({ losses }: { readonly losses: Losses }) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<UPlot | undefined>(undefined);
  const shown = useStore(look);
  useEffect(() => {
    const element = place.current!;
    const style = getComputedStyle(element);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--muted"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    chart.current = new UPlot(
      {
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
          { stroke: colour("--curve-faint"), width: 1, points: { show: false } },
          { stroke: colour("--accent"), width: 2, points: { show: false } },
        ],
      },
      dataOf(losses),
      element,
    );
    const observer = new ResizeObserver(() =>
      chart.current?.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.current?.destroy();
    };
  }, [shown]);
  useEffect(() => chart.current?.setData(dataOf(losses)), [losses]);
  const last = losses.at(-1);
  const label = last
    ? t("train.chart", { step: last[0], loss: last[1].toFixed(4) })
    : t("train.loss");
  return <div class="chart" ref={place} role="img" aria-label={label} />;
}

/** Steps, losses, and their moving average, which counts only what there is at first. */
function dataOf(losses: Losses): UPlot.AlignedData {
  let [sum, weight] = [0, 0];
  const smooth = losses.map(([, loss]) => {
    sum = SMOOTHING * sum + loss;
    weight = SMOOTHING * weight + 1;
    return sum / weight;
  });
  return [losses.map(([step]) => step), losses.map(([, loss]) => loss), smooth];
}
