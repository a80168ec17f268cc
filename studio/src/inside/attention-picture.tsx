/** The picture under its patch grid: choose a patch, and see where it looks or who looks at it. */
import { useRef } from "preact/hooks";
import type { Picture } from "../../../src/pictures/picture.ts";
import { t } from "../language.ts";
import { Pixels } from "../parts/pixels.tsx";
import { colourOf, type Direction, type PatchGrid } from "./attention.ts";

/** Lines that are drawn from a patch to those with the largest shares. */
const LINES = 8;

interface AttentionPictureProps {
  readonly picture: Picture;
  readonly grid: PatchGrid;
  readonly patch: number;
  readonly shares: Float32Array | undefined;
  readonly direction: Direction;
  readonly onPatch: (patch: number) => void;
}

export function AttentionPicture(props: AttentionPictureProps) {
  const { picture, grid, patch, shares, direction, onPatch } = props;
  const { columns, rows } = grid;
  const buttons = useRef<HTMLDivElement>(null);
  const onKeyDown = (event: KeyboardEvent) => {
    const moves: Readonly<Record<string, readonly [number, number]>> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const column = Math.min(columns - 1, Math.max(0, (patch % columns) + move[0]));
    const row = Math.min(rows - 1, Math.max(0, Math.floor(patch / columns) + move[1]));
    const next = row * columns + column;
    onPatch(next);
    buttons.current?.querySelectorAll("button")[next]?.focus();
  };
  return (
    <div class={`attention-picture ${direction}`} style={{ "--columns": columns, "--rows": rows }}>
      <Pixels picture={picture} label={t("inside.picture")} />
      {shares && <Shares {...props} shares={shares} />}
      <div
        class="patches"
        role="group"
        aria-label={t("inside.patches")}
        ref={buttons}
        onKeyDown={onKeyDown}
      >
        {Array.from({ length: columns * rows }, (_, i) => (
          <button
            key={i}
            type="button"
            aria-pressed={i === patch}
            tabIndex={i === patch ? 0 : -1}
            aria-label={t("inside.patch", {
              row: Math.floor(i / columns) + 1,
              column: (i % columns) + 1,
              share: ((shares?.[i] ?? 0) * 100).toFixed(1),
            })}
            onClick={() => onPatch(i)}
            onPointerEnter={(event) => event.buttons === 1 && onPatch(i)}
          />
        ))}
      </div>
    </div>
  );
}

/** Shares as light over the picture, and lines to where most of them are. */
function Shares({
  grid: { columns, rows },
  patch,
  shares,
  direction,
}: AttentionPictureProps & { readonly shares: Float32Array }) {
  const top = shares.reduce((a, b) => Math.max(a, b), 1e-9);
  const centre = (i: number) => [(i % columns) + 0.5, Math.floor(i / columns) + 0.5] as const;
  const [x, y] = centre(patch);
  const largest = [...shares.keys()]
    .filter((i) => i !== patch)
    .sort((a, b) => shares[b]! - shares[a]!)
    .slice(0, LINES);
  return (
    <svg viewBox={`0 0 ${columns} ${rows}`} aria-hidden="true">
      {[...shares].map((share, i) => {
        const strength = Math.sqrt(share / top);
        const [r, g, b] = colourOf(0.4 + 0.4 * strength, direction);
        return (
          <rect
            key={i}
            x={(i % columns) + 0.03}
            y={Math.floor(i / columns) + 0.03}
            width="0.94"
            height="0.94"
            rx="0.1"
            fill={`rgb(${r} ${g} ${b})`}
            fill-opacity={(0.92 * strength ** 1.5).toFixed(3)}
          />
        );
      })}
      {largest.map((i) => {
        const [tx, ty] = centre(i);
        const [mx, my] = [(x + tx) / 2, (y + ty) / 2];
        // Bowed to one side, so that lines in one direction are told apart.
        const bend = `${mx + (ty - y) * 0.22} ${my - (tx - x) * 0.22}`;
        const share = shares[i]! / top;
        return (
          <g key={i} class="line" style={{ opacity: Math.max(0.25, share).toFixed(2) }}>
            <path
              d={`M${x} ${y}Q${bend} ${tx} ${ty}`}
              stroke-width={(0.03 + 0.11 * share).toFixed(3)}
            />
            <circle cx={tx} cy={ty} r={(0.07 + 0.12 * share).toFixed(3)} />
          </g>
        );
      })}
      <rect
        class="chosen"
        x={(patch % columns) + 0.02}
        y={Math.floor(patch / columns) + 0.02}
        width="0.96"
        height="0.96"
        rx="0.12"
      />
    </svg>
  );
}
