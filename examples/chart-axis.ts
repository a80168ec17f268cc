/** Where values stand on an axis of a chart, and which are written beside it. */

export interface Axis {
  /** The place of a value, in pixels. */
  place(value: number): number;
  readonly ticks: readonly { readonly at: number; readonly text: string }[];
}

/** About so many ticks make an axis easy to read. */
const TICKS = 6;

/**
 * An axis for finite values, positive ones where it is logarithmic.
 *
 * @param ends pixels of its low and its high end
 */
export function axisOf(
  values: readonly number[],
  scale: "linear" | "log" = "linear",
  [from, to]: readonly [number, number],
): Axis {
  const lowest = values.reduce((least, value) => Math.min(least, value), Infinity);
  const highest = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const [forward, back] =
    scale === "log"
      ? [Math.log10, (power: number) => 10 ** power]
      : [(value: number) => value, (value: number) => value];
  const [first, last] = widened(forward(lowest), forward(highest));
  const place = (value: number) => from + ((forward(value) - first) / (last - first)) * (to - from);
  const chosen =
    scale === "log" ? logTicks(back(first), back(last)) : evenTicks(back(first), back(last));
  return { place, ticks: chosen.map((value) => ({ at: place(value), text: written(value) })) };
}

/** A little room at both ends, so that no point stands on the frame. */
function widened(low: number, high: number): [number, number] {
  // All values are one, or as good as one: around it, there is nothing to compare them with.
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) {
    const half = Math.abs(low) / 2 || 0.5;
    return [low - half, high + half];
  }
  const room = 0.05 * (high - low);
  return [low - room, high + room];
}

/** Multiples of 1, 2 or 5 times a power of ten. */
function evenTicks(low: number, high: number): number[] {
  const rough = (high - low) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const ratio = rough / power;
  const step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

/** Powers of ten, with 2 and 5 times them where there are few; even steps where there are almost none. */
function logTicks(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  const within = (value: number) => value >= low && value <= high;
  const whole = powers.filter(within);
  if (whole.length > TICKS) {
    const every = Math.ceil(whole.length / TICKS);
    return whole.filter((_, i) => i % every === 0);
  }
  if (whole.length > 3) return whole;
  const finer = powers.flatMap((power) => [power, 2 * power, 5 * power]).filter(within);
  return finer.length > 2 ? finer : evenTicks(low, high);
}

function written(value: number): string {
  // Multiples of 0.1 are not exact.
  const exact = Number(value.toPrecision(9));
  const size = Math.abs(exact);
  return size !== 0 && (size >= 1e5 || size < 1e-3)
    ? exact.toExponential().replace("e+", "e")
    : exact.toLocaleString("en", { maximumFractionDigits: 9 });
}
