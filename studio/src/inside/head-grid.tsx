/** All layers and heads at once, for one patch; a click chooses a head. */
import { t } from "../language.ts";
import { ALL_HEADS, type Direction, meanDistance, type PatchGrid, sharesOf } from "./attention.ts";
import { Heat } from "./heat.tsx";
import type { Attention } from "./looks.ts";

export interface ChosenHead {
  readonly layer: number;
  readonly head: number;
}

interface HeadGridProps {
  readonly attention: readonly Attention[];
  readonly grid: PatchGrid;
  readonly patch: number;
  readonly direction: Direction;
  readonly chosen: ChosenHead;
  readonly onChoose: (chosen: ChosenHead) => void;
}

export function HeadGrid({ attention, grid, patch, direction, chosen, onChoose }: HeadGridProps) {
  const patches = grid.columns * grid.rows;
  const heads = attention[0]?.heads ?? 0;
  return (
    <div
      class="head-grid"
      style={{ "--heads": heads + 1 }}
      role="group"
      aria-label={t("inside.heads")}
    >
      <span />
      {[...Array(heads).keys()].map((head) => (
        <span key={head} class="axis">
          {t("inside.head", { head: head + 1 })}
        </span>
      ))}
      <span class="axis">{t("inside.mean")}</span>
      {attention.map((layer, index) => [
        <span key={`layer ${index}`} class="axis row">
          {index + 1}
        </span>,
        ...[...Array(heads).keys(), ALL_HEADS].map((head) => (
          <button
            key={`${index} ${head}`}
            type="button"
            class={head === ALL_HEADS ? "mean" : ""}
            aria-pressed={chosen.layer === index && chosen.head === head}
            aria-label={t("inside.choose", {
              layer: index + 1,
              head: head === ALL_HEADS ? t("inside.mean") : head + 1,
            })}
            onClick={() => onChoose({ layer: index, head })}
          >
            <Heat
              shares={sharesOf(layer, head, patch, patches, direction)}
              columns={grid.columns}
              direction={direction}
            />
          </button>
        )),
      ])}
    </div>
  );
}

interface ReachProps {
  readonly attention: readonly Attention[];
  readonly grid: PatchGrid;
  readonly chosen: ChosenHead;
}

/** How far each head looks on average, by layer: what is local and what is global. */
export function Reach({ attention, grid, chosen }: ReachProps) {
  const [width, height, left, bottom] = [300, 150, 30, 24];
  const all = attention.map((layer) =>
    [...Array(layer.heads).keys()].map((head) => meanDistance(layer, head, grid)),
  );
  // The mean distance of two patches that are chosen at random.
  const random = 0.5214 * Math.max(grid.columns, grid.rows);
  const most = Math.max(random, ...all.flat()) * 1.1;
  const x = (layer: number) => left + ((layer + 0.5) * (width - left)) / attention.length;
  const y = (distance: number) => (height - bottom) * (1 - distance / most) + 4;
  const description = all.map(
    (layer, i) => `${i + 1}: ${layer.map((d) => d.toFixed(1)).join(", ")}`,
  );
  return (
    <figure class="reach">
      <svg
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        aria-label={`${t("inside.reach")} ${description.join("; ")}`}
      >
        <line
          class="rule"
          x1={left}
          x2={width}
          y1={y(random)}
          y2={y(random)}
          stroke-dasharray="3 3"
        />
        <text x={width} y={y(random) - 4} text-anchor="end">
          {t("inside.random")}
        </text>
        {[0, Math.floor(most / 2), Math.floor(most)].map((tick) => (
          <text key={tick} x={left - 8} y={y(tick) + 3} text-anchor="end">
            {tick}
          </text>
        ))}
        {all.map((layer, i) => (
          <g key={i}>
            <text x={x(i)} y={height - 4} text-anchor="middle">
              {i + 1}
            </text>
            {layer.map((distance, head) => (
              <circle
                key={head}
                class={
                  chosen.layer === i && (chosen.head === head || chosen.head === ALL_HEADS)
                    ? "chosen"
                    : ""
                }
                cx={x(i) + 7 * (head - (layer.length - 1) / 2)}
                cy={y(distance)}
                r="4"
              />
            ))}
          </g>
        ))}
      </svg>
      <figcaption>{t("inside.reach")}</figcaption>
    </figure>
  );
}
