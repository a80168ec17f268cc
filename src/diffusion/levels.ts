/**
 * Noise levels: x = alpha · x0 + sigma · noise. Every process (DDPM's discrete one, rectified flow, EDM) is a list of such
 * levels, noisiest first, and samplers depend on nothing else of it.
 */
import { UsageError } from "../engine/errors.ts";

export interface NoiseLevel {
  /** The time that the network is given, in its own unit. */
  readonly time: number;
  /** Share of the image, in [0, 1]. */
  readonly alpha: number;
  /** Share of the noise, which has unit variance; not negative. */
  readonly sigma: number;
}

/** The level without noise, at which sampling ends; the network never runs at it. */
export const clean: NoiseLevel = { time: 0, alpha: 1, sigma: 0 };

/** The variance-preserving level, alpha² + sigma² = 1, of a noise-to-signal ratio. */
export function variancePreserving(time: number, ratio: number): NoiseLevel {
  const alpha = 1 / Math.sqrt(ratio ** 2 + 1);
  return { time, alpha, sigma: ratio * alpha };
}

/** The level of a straight path from noise to image, alpha + sigma = 1 (Liu et al., 2022, "Flow Straight and Fast"). */
export function straight(time: number, sigma: number): NoiseLevel {
  return { time, alpha: 1 - sigma, sigma };
}

/** sigma / alpha; infinite for pure noise. */
export function noiseRatio({ alpha, sigma }: NoiseLevel): number {
  return sigma / alpha;
}

/** λ = log(alpha / sigma), half the log signal-to-noise ratio (Lu et al., 2022). */
export function logRatio({ alpha, sigma }: NoiseLevel): number {
  return Math.log(alpha / sigma);
}

/** t′ = s·t / (1 + (s − 1)·t): more steps at high noise for larger images (Esser et al., 2024, eq. 23). */
export function shiftTime(time: number, shift: number): number {
  // Pure noise must stay pure noise in spite of rounding.
  return time === 1 ? 1 : (shift * time) / (1 + (shift - 1) * time);
}

/** A shift s, or one that grows with the image or clip: value·√(frames·height·width / area). */
export type Shift = number | { readonly value: number; readonly area: number };

/** The shift for a height and width of the network's input, and for clips its frames (Esser et al., 2024, eq. 23: s = √(m/n)). */
export function shiftAt(
  shift: Shift,
  [height, width]: readonly [number, number],
  frames = 1,
): number {
  if (typeof shift === "number") return shift;
  return shift.value * Math.sqrt((frames * height * width) / shift.area);
}

/** Refuses a shift for a process that is not a rectified flow. @throws UsageError if one is given */
export function refuseShift(shift: number | undefined): void {
  if (shift === undefined) return;
  throw new UsageError(
    `shift does not apply to this model: it has a schedule of fixed steps, and only the times of a rectified flow can be shifted; leave ${shift} out.`,
  );
}

export interface FlowOptions {
  /** s of eq. 23; 1 (no shift) unless given. */
  readonly shift?: number;
  /** The last noisy time before the shift; 1 / steps unless given, for equal steps. */
  readonly lowest?: number;
  /** Stretches the times so that the last noisy one has this value. */
  readonly terminal?: number;
  /** The network's unit for time 1; 1000 unless given. */
  readonly timeScale?: number;
}

/**
 * The levels of rectified flow at times from 1 to `lowest`, then 0; a time is its sigma.
 *
 * @throws UsageError unless steps is a whole number of at least 1, the shift is positive and the times fall
 */
export function flowLevels(steps: number, options: FlowOptions = {}): NoiseLevel[] {
  checkSteps(steps);
  const { shift = 1, lowest = 1 / steps, terminal, timeScale = 1000 } = options;
  if (!(shift > 0)) {
    throw new UsageError(
      `The shift of flow times is ${shift}; give a positive number, 1 for no shift.`,
    );
  }
  const shifted = linspace(1, lowest, steps).map((time) => shiftTime(time, shift));
  // Equal times, as by rounding in float32, would be steps of pure noise that lead nowhere.
  if (shifted.some((time, i) => i > 0 && !(Math.fround(time) < Math.fround(shifted[i - 1]!)))) {
    throw new UsageError(
      `A shift of ${shift} leaves all ${steps} steps at pure noise; give a smaller one, such as 3.`,
    );
  }
  const times = terminal === undefined ? shifted : stretchedTo(terminal, shifted);
  return [...times.map((sigma) => straight(sigma * timeScale, sigma)), clean];
}

/**
 * Times that begin at 1, stretched so that the last one is `terminal`.
 *
 * @throws UsageError if the terminal time is not in (0, 1), or there is one time only
 */
export function stretchedTo(terminal: number, times: readonly number[]): number[] {
  if (!(terminal > 0 && terminal < 1)) {
    throw new UsageError(`The terminal sigma is ${terminal}; it must be between 0 and 1.`);
  }
  if (!(times.at(-1)! < 1)) {
    throw new UsageError(
      `One step cannot end at a terminal sigma of ${terminal}; give at least 2 steps.`,
    );
  }
  const stretch = (1 - terminal) / (1 - times.at(-1)!);
  return times.map((time) => 1 - (1 - time) * stretch);
}

/**
 * The levels of Stable Diffusion 3's own code: down to the last of 1000 shifted times, which is shifted a second time with
 * the others.
 *
 * @throws UsageError as `flowLevels` does
 */
export function sd3Levels(steps: number, shift: number): NoiseLevel[] {
  return flowLevels(steps, { shift, lowest: shiftTime(1 / 1000, shift) });
}

/** Noise-to-signal ratios from max to min, evenly spaced in their rho-th root (Karras et al., 2022, eq. 5). */
export function karrasRatios(steps: number, max: number, min: number, rho = 7): number[] {
  return linspace(max ** (1 / rho), min ** (1 / rho), steps).map((root) => root ** rho);
}

/** Noise-to-signal ratios from max to min, evenly spaced in their logarithm (Lu et al., 2022). */
export function exponentialRatios(steps: number, max: number, min: number): number[] {
  return linspace(Math.log(max), Math.log(min), steps).map(Math.exp);
}

export interface KarrasOptions {
  /** The first noise level, in units of the data's standard deviation; 80 by default. */
  readonly max?: number;
  /** The last noise level before 0, above 0; 0.002 by default. */
  readonly min?: number;
  /** The exponent of the curve, above 0: larger values put more levels near `min`; 7 by default. */
  readonly rho?: number;
}

/**
 * EDM's levels, alpha = 1, with the published ratios from 80 to 0.002; the network's time is log(sigma) / 4
 * (Karras et al., 2022, table 1).
 *
 * @throws UsageError unless steps is a whole number of at least 1
 */
export function karrasLevels(steps: number, options: KarrasOptions = {}): NoiseLevel[] {
  checkSteps(steps);
  const { max = 80, min = 0.002, rho = 7 } = options;
  const ratios = karrasRatios(steps, max, min, rho);
  return [...ratios.map((sigma) => ({ time: Math.log(sigma) / 4, alpha: 1, sigma })), clean];
}

/** `count` numbers from first to last, evenly spaced, as NumPy rounds them; the first if count is 1. */
export function linspace(first: number, last: number, count: number): number[] {
  const step = (last - first) / (count - 1);
  return Array.from({ length: count }, (_, i) =>
    i > 0 && i === count - 1 ? last : i === 0 ? first : i * step + first,
  );
}

/**
 * The levels of image-to-image, as in Stable Diffusion 3's code: the last part of the schedule, at least one step.
 *
 * @param strength share of the steps, in (0, 1]
 */
export function levelsOfStrength(
  schedule: readonly NoiseLevel[],
  steps: number,
  strength: number,
): readonly NoiseLevel[] {
  return schedule.slice(Math.min(steps - Math.ceil(partOf(steps, strength)), schedule.length - 2));
}

/** A share of a number of steps without the rounding of binary numbers: 0.07 of 100 is 7, not 7.000000000000001. */
function partOf(steps: number, share: number): number {
  return Number((steps * share).toPrecision(12));
}

/** The ratio that pure noise counts as in an interval: beyond every other level, but finite, as JSON has numbers. */
const PURE_NOISE = 1e9;

/** Ratios of noise to signal in (above, upTo], where that of pure noise counts as 1e9. */
export interface NoiseInterval {
  readonly above: number;
  readonly upTo: number;
}

/**
 * The interval of the times of rectified flow from one to another, both included whatever their rounding: pure noise has the
 * time 1.
 */
export function timesInside(from: number, to: number): NoiseInterval {
  const ratio = (time: number) => Math.min(noiseRatio(straight(time, time)), PURE_NOISE);
  const rounding = 1e-6;
  return { above: ratio(from) * (1 - rounding), upTo: ratio(to) * (1 + rounding) };
}

export function isWithin({ above, upTo }: NoiseInterval, level: NoiseLevel): boolean {
  const ratio = Math.min(noiseRatio(level), PURE_NOISE);
  return ratio > above && ratio <= upTo;
}

/**
 * The interval of noise of the steps whose number, from 0, is greater than `from`·steps and less than `to`·steps.
 *
 * @param steps of the whole schedule; `levels` may be its last part only
 */
export function noiseOfSteps(
  levels: readonly NoiseLevel[],
  steps: number,
  { from, to }: { readonly from: number; readonly to: number },
): NoiseInterval {
  const asked = levels.slice(0, -1);
  const first = asked.findIndex((_, step) => step > partOf(steps, from));
  const end = asked.findIndex((_, step) => step >= partOf(steps, to));
  return {
    above: noiseRatio(levels.at(end)!),
    upTo: first < 0 ? 0 : noiseRatio(asked[first]!),
  };
}

/**
 * @param most the largest number of steps that the schedule allows
 * @throws UsageError unless steps is a whole number from 1 to `most`
 */
export function checkSteps(steps: number, most = Infinity): void {
  if (Number.isInteger(steps) && steps >= 1 && steps <= most) return;
  const range = most === Infinity ? "of at least 1" : `from 1 to ${most}`;
  throw new UsageError(`${steps} sampling steps were asked for; give a whole number ${range}.`);
}
