/** Line and scatter charts as SVG, without a library. */
import { UsageError } from "patchwise";
import { type Axis, axisOf } from "./chart-axis.ts";

export interface ChartPoint {
  readonly x: number;
  readonly y: number;
  /** Stands beside the point. */
  readonly label?: string;
}

export interface ChartSeries {
  /** As the legend calls it. */
  readonly name: string;
  readonly points: readonly ChartPoint[];
  /** Joins the points in their order, marks each, or both. */
  readonly style: "line" | "scatter" | "both";
}

export interface ChartAxis {
  readonly label: string;
  /** "linear" unless given. */
  readonly scale?: "linear" | "log";
}

export interface ChartOptions {
  readonly title: string;
  readonly x: ChartAxis;
  readonly y: ChartAxis;
  readonly series: readonly ChartSeries[];
  /** Pixels; 800 and 500 unless given. */
  readonly width?: number;
  readonly height?: number;
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

interface PlacedPoint {
  readonly x: number;
  readonly y: number;
  readonly label: string | undefined;
}

const FONT = 13;
/** A letter's width is not known before a font draws it; this is a wide one's of most sans-serif fonts. */
const LETTER = 0.56 * FONT;
const MARK = 4;

/** Seven colours that colour-blind people tell apart as well (Okabe & Ito, 2008). */
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/** Each series has a mark of its own too, for prints without colours; paths around a point. */
const marks = [
  `m${-MARK},0a${MARK},${MARK} 0 1 0 ${2 * MARK},0a${MARK},${MARK} 0 1 0 ${-2 * MARK},0z`,
  `m${-MARK},${-MARK}h${2 * MARK}v${2 * MARK}h${-2 * MARK}z`,
  `m0,${-MARK - 1}l${MARK + 1},${2 * MARK}h${-2 * MARK - 2}z`,
  `m0,${-MARK - 2}l${MARK + 1},${MARK + 2}l${-MARK - 1},${MARK + 2}l${-MARK - 1},${-MARK - 2}z`,
];

/**
 * Draws a chart.
 *
 * @returns an SVG file
 * @throws UsageError when there is no point, one is no finite number, or is not positive on a logarithmic axis
 */
export function chart(options: ChartOptions): string {
  const { title, series, width = 800, height = 500 } = options;
  check(options);
  const points = series.flatMap((each) => each.points);
  const widest = Math.max(...series.map(({ name }) => name.length)) * LETTER;
  const legend = series.length > 1 ? widest + 50 : 20;
  const area = { top: 48, bottom: height - 56, right: width - legend };
  const y = axisOf(
    points.map((point) => point.y),
    options.y.scale,
    [area.bottom, area.top],
  );
  const left = 44 + Math.max(...y.ticks.map((tick) => tick.text.length)) * LETTER;
  const x = axisOf(
    points.map((point) => point.x),
    options.x.scale,
    [left, area.right],
  );
  const plot = { ...area, left };
  const placed = series.map((each) =>
    each.points.map((point) => ({
      x: x.place(point.x),
      y: y.place(point.y),
      label: point.label,
    })),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="${FONT}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text(title, left, 28, `font-size="17" font-weight="bold"`),
    ...grid(x, y, plot),
    text(options.x.label, (left + area.right) / 2, height - 14, `text-anchor="middle"`),
    text(
      options.y.label,
      0,
      0,
      `text-anchor="middle" transform="translate(20 ${round((area.top + area.bottom) / 2)}) rotate(-90)"`,
    ),
    ...series.map((each, i) => drawn(each, placed[i]!, i)),
    ...labels(series, placed, plot),
    ...(series.length > 1 ? series.map((each, i) => legendRow(each, i, area.right, area.top)) : []),
    "</svg>\n",
  ].join("\n");
}

function check({ title, series, x, y }: ChartOptions): void {
  if (series.every(({ points }) => points.length === 0)) {
    throw new UsageError(`The chart "${title}" has no points; give at least one.`);
  }
  for (const { name, points } of series) {
    for (const point of points) {
      for (const [key, axis] of [
        ["x", x],
        ["y", y],
      ] as const) {
        const value = point[key];
        if (Number.isFinite(value) && (axis.scale !== "log" || value > 0)) continue;
        throw new UsageError(
          `The chart "${title}" cannot show ${value} as ${axis.label} of ${name}; give a finite number${axis.scale === "log" ? " above 0, or a linear axis" : ""}.`,
        );
      }
    }
  }
}

function grid(x: Axis, y: Axis, { left, top, right, bottom }: Box): string[] {
  return [
    ...x.ticks.map(({ at }) => line(at, top, at, bottom, "#e4e4e4")),
    ...y.ticks.map(({ at }) => line(left, at, right, at, "#e4e4e4")),
    ...x.ticks.map((tick) => text(tick.text, tick.at, bottom + 18, `text-anchor="middle"`)),
    ...y.ticks.map((tick) => text(tick.text, left - 8, tick.at + 4.5, `text-anchor="end"`)),
    line(left, bottom, right, bottom, "#444"),
    line(left, top, left, bottom, "#444"),
  ];
}

function drawn({ style }: ChartSeries, points: readonly PlacedPoint[], index: number): string {
  const colour = colourOf(index);
  const corners = points.map(({ x, y }) => `${round(x)},${round(y)}`);
  const joined =
    style === "scatter"
      ? ""
      : `<polyline points="${corners.join(" ")}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round"/>`;
  const marked =
    style === "line"
      ? ""
      : `<path d="${corners.map((corner) => `M${corner}${markOf(index)}`).join("")}" fill="${colour}"/>`;
  return joined + marked;
}

/** Beside the points, where they cover least of the marks, of one another and of the lines. */
function labels(
  series: readonly ChartSeries[],
  placed: readonly (readonly PlacedPoint[])[],
  plot: Box,
): string[] {
  const taken = placed.flat().map((point) => around(point, MARK, MARK));
  const lines = placed.flatMap((points, i) =>
    series[i]!.style === "scatter" ? [] : trail(points),
  );
  const covered = (box: Box) =>
    // The frame counts most: a label beyond it may leave the picture.
    (inside(box, plot) ? 0 : 1000) +
    100 * taken.filter((other) => overlap(box, other)).length +
    lines.filter((other) => overlap(box, other)).length;
  return placed.flatMap((points, i) =>
    points.flatMap(({ x, y, label }) => {
      if (label === undefined) return [];
      const half = (label.length * LETTER) / 2;
      const [beside, over] = [half + MARK + 4, 14];
      const [first, ...others] = [
        { x: x + beside, y },
        { x, y: y - over },
        { x: x - beside, y },
        { x, y: y + over },
        { x: x + beside, y: y - over },
        { x: x - beside, y: y + over },
        { x: x - beside, y: y - over },
        { x: x + beside, y: y + over },
      ].map((centre) => ({ centre, box: around(centre, half, FONT / 2) }));
      let best = first!;
      for (const other of others) if (covered(other.box) < covered(best.box)) best = other;
      taken.push(best.box);
      // A rim of white keeps it legible upon lines.
      const look = `text-anchor="middle" fill="${colourOf(i)}" stroke="#fff" stroke-width="3" paint-order="stroke"`;
      return [text(label, best.centre.x, best.centre.y + 4.5, look)];
    }),
  );
}

/** Points of a line, every few pixels. */
function trail(points: readonly PlacedPoint[]): Box[] {
  return points.slice(1).flatMap((end, i) => {
    const begin = points[i]!;
    const count = Math.ceil(Math.hypot(end.x - begin.x, end.y - begin.y) / 5);
    return Array.from({ length: count }, (_, k) =>
      around(
        {
          x: begin.x + ((end.x - begin.x) * k) / count,
          y: begin.y + ((end.y - begin.y) * k) / count,
        },
        1,
        1,
      ),
    );
  });
}

function around({ x, y }: { x: number; y: number }, wide: number, high: number): Box {
  return { left: x - wide, top: y - high, right: x + wide, bottom: y + high };
}

function inside(box: Box, frame: Box): boolean {
  const { left, top, right, bottom } = box;
  return left >= frame.left && right <= frame.right && top >= frame.top && bottom <= frame.bottom;
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function legendRow({ name, style }: ChartSeries, index: number, right: number, top: number) {
  const [x, y] = [right + 14, top + 8 + index * 22];
  const colour = colourOf(index);
  const joined = style === "scatter" ? "" : line(x, y, x + 20, y, colour, 2);
  const mark = `<path d="M${x + 10},${y}${markOf(index)}" fill="${colour}"/>`;
  return joined + (style === "line" ? "" : mark) + text(name, x + 28, y + 4.5);
}

const colourOf = (index: number) => colours[index % colours.length]!;
const markOf = (index: number) => marks[index % marks.length]!;

function line(x1: number, y1: number, x2: number, y2: number, colour: string, wide = 1): string {
  return `<path d="M${round(x1)},${round(y1)}L${round(x2)},${round(y2)}" stroke="${colour}" stroke-width="${wide}"/>`;
}

function text(content: string, x: number, y: number, attributes = ""): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escaped(content)}</text>`;
}

/** To a hundredth of a pixel. */
function round(value: number): number {
  return Math.round(value * 100) / 100;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

function escaped(content: string): string {
  return content.replace(/[&<>"]/g, (character) => entities[character]!);
}
