/** The plot of `patchwise plan`: images a second over ranks, beside the speed that no communication would give. */
import type { Link, PlannedRanks, SharedMemory } from "../training/scaling/plan.ts";

const [WIDTH, HEIGHT, MARGIN] = [640, 420, 60];

/** An SVG with both axes logarithmic. */
export function plannedPlot(rows: readonly PlannedRanks[], link: Link | SharedMemory): string {
  const where = "gigabits" in link ? `at ${link.gigabits} Gbit/s` : "on one machine";
  const [first] = rows as readonly [PlannedRanks];
  const ideal = rows.map(({ ranks }) => (first.imagesPerSecond / first.ranks) * ranks);
  const speeds = rows.map(({ imagesPerSecond }) => imagesPerSecond);
  const x = axis(
    rows.map(({ ranks }) => ranks),
    MARGIN,
    WIDTH - 40,
  );
  const y = axis([...ideal, ...speeds], HEIGHT - MARGIN, 50);
  const line = (values: readonly number[]) =>
    rows.map(({ ranks }, i) => `${x(ranks)},${y(values[i]!)}`).join(" ");
  const marks = rows.map(({ ranks, imagesPerSecond, efficiency }) => {
    const [cx, cy] = [x(ranks), y(imagesPerSecond)];
    return (
      `<circle cx="${cx}" cy="${cy}" r="4" fill="#0b6bcb"/>` +
      `<text x="${cx}" y="${cy - 10}" text-anchor="middle">${(100 * efficiency).toFixed(0)} %</text>` +
      `<text x="${cx}" y="${HEIGHT - MARGIN + 24}" text-anchor="middle">${ranks}</text>`
    );
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="13">
<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>
<text x="${WIDTH / 2}" y="20" text-anchor="middle">Images a second over ranks, and efficiency, ${where} (predicted)</text>
<polyline points="${line(ideal)}" fill="none" stroke="#999" stroke-dasharray="5 4"/>
<polyline points="${line(speeds)}" fill="none" stroke="#0b6bcb" stroke-width="2"/>
${marks.join("\n")}
<text x="${MARGIN - 8}" y="${y(speeds[0]!)}" text-anchor="end">${rounded(speeds[0]!)}</text>
<text x="${MARGIN - 8}" y="${y(speeds.at(-1)!)}" text-anchor="end">${rounded(speeds.at(-1)!)}</text>
<text x="${WIDTH / 2}" y="${HEIGHT - 15}" text-anchor="middle">ranks</text>
</svg>
`;
}

/** Two digits, without an exponent. */
function rounded(value: number): string {
  return String(Number(value.toPrecision(2)));
}

/** Maps the logarithms of values to pixels. */
function axis(values: readonly number[], from: number, to: number): (value: number) => number {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const range = Math.log(most / least) || 1;
  return (value) => Math.round(10 * (from + ((to - from) * Math.log(value / least)) / range)) / 10;
}
