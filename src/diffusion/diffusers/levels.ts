/** Tables, times and noise levels of diffusers' schedulers, with diffusers' rounding. */
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import {
  clean,
  exponentialRatios,
  flowLevels,
  karrasRatios,
  linspace,
  type NoiseLevel,
  shiftTime,
  straight,
  stretchedTo,
  variancePreserving,
} from "../levels.ts";
import {
  alphaBarsOf,
  betasOf,
  interpolate,
  levelOf,
  noiseRatios,
  timeOfRatio,
  zeroTerminalSNR,
} from "../schedule.ts";
import { spacedTimesteps, type TimestepSpacing, timestepSpacings } from "../timesteps.ts";
import { torchLinspace } from "../torch-linspace.ts";

const float32 = Math.fround;

export interface Tables {
  readonly trainSteps: number;
  readonly alphaBars: Float64Array;
  /** √((1 − ᾱ) / ᾱ) */
  readonly ratios: Float64Array;
}

interface TableDefaults {
  readonly start?: number;
  readonly end?: number;
  /** True if a terminal ᾱ of 0 is replaced by 2⁻²⁴, which makes the ratio finite. */
  readonly lowest?: boolean;
}

export function diffusersTables(
  read: FieldReader,
  { start = 0.0001, end = 0.02, lowest = false }: TableDefaults = {},
): Tables {
  const trainSteps = read.count("num_train_timesteps", 1000);
  const kinds = ["linear", "scaled_linear", "squaredcos_cap_v2"] as const;
  const kind = read.choice("beta_schedule", kinds, "linear");
  const ends = { start: read.number("beta_start", start), end: read.number("beta_end", end) };
  const zeroTerminal = read.flag("rescale_betas_zero_snr", false);
  const trained = read.numbers("trained_betas", []);
  if (trained.length > 0 && trained.length !== trainSteps) {
    throw new FormatError(
      `${read.file} has ${trained.length} trained_betas for ${trainSteps} steps; give one for each.`,
    );
  }
  const plain =
    trained.length > 0 ? Float64Array.from(trained, float32) : betas32(kind, ends, trainSteps);
  const betas = zeroTerminal ? zeroTerminalSNR(plain, float32) : plain;
  const alphaBars = alphaBarsOf(betas, float32);
  if (zeroTerminal && lowest) alphaBars[trainSteps - 1] = 2 ** -24;
  return { trainSteps, alphaBars, ratios: noiseRatios(alphaBars, float32) };
}

function betas32(
  kind: "linear" | "scaled_linear" | "squaredcos_cap_v2",
  { start, end }: { readonly start: number; readonly end: number },
  steps: number,
): Float64Array {
  switch (kind) {
    case "linear":
      return torchLinspace(start, end, steps);
    case "scaled_linear":
      return torchLinspace(Math.sqrt(start), Math.sqrt(end), steps).map((x) => float32(x * x));
    case "squaredcos_cap_v2":
      return betasOf({ kind: "cosine" }, steps).map(float32);
  }
}

/** The whole-number times of schedulers that look up ᾱ. */
export function singleStepTimes(
  read: FieldReader,
  steps: number,
  otherwise: TimestepSpacing,
): number[] {
  return spacedTimesteps(read.choice("timestep_spacing", timestepSpacings, otherwise), steps, {
    trainSteps: read.count("num_train_timesteps", 1000),
    offset: read.number("steps_offset", 0),
  });
}

/** The levels at whole-number times, and the last level. */
export function noisiestFirst(
  { alphaBars }: Tables,
  times: readonly number[],
  end: NoiseLevel,
): NoiseLevel[] {
  return [...times.map((time) => levelOf(time, alphaBars[time]!)), end];
}

/** Levels of Euler's and Heun's schedulers, whose times may lie between two steps. */
export function pointwiseLevels(read: FieldReader, tables: Tables, steps: number): NoiseLevel[] {
  const spacing = read.choice("timestep_spacing", timestepSpacings, "linspace");
  const times = spacedTimesteps(spacing, steps, {
    trainSteps: tables.trainSteps,
    offset: read.number("steps_offset", 0),
    fractional: true,
  }).map(float32);
  const ratios = times.map((time) => interpolate(tables.ratios, time));
  const max = read.number("sigma_max", ratios[0]);
  const min = read.number("sigma_min", ratios.at(-1));
  const converted = convertedRatios(read, steps, max, min);
  const levels = converted
    ? converted.map((ratio) => [float32(timeOf(tables, ratio)), ratio] as const)
    : times.map((time, i) => [time, ratios[i]!] as const);
  return withEnd(
    read,
    tables,
    levels.map(([time, ratio]) => variancePreserving(time, float32(ratio))),
  );
}

/**
 * Levels of the multistep solvers, whose times are whole numbers.
 *
 * @param rounding of the times of ratios with a spacing of their own
 */
export function multistepLevels(
  read: FieldReader,
  tables: Tables,
  steps: number,
  rounding: "near" | "down",
): NoiseLevel[] {
  const { ratios, trainSteps } = tables;
  if (read.flag("use_flow_sigmas", false)) {
    const shift = read.number("flow_shift", 1);
    const sigmas = linspace(1, 1 / trainSteps, steps + 1)
      .map((alpha) => shiftTime(1 - alpha, shift))
      .toReversed()
      .slice(0, steps);
    const last = endsAtZero(read) ? clean : straight(0, float32(ratios[0]!));
    return [...sigmas.map((sigma) => wholeTime(sigma, trainSteps)), last];
  }
  const max = read.number("sigma_max", ratios.at(-1));
  const min = read.number("sigma_min", ratios[0]);
  const converted = convertedRatios(read, steps, max, min);
  if (converted) {
    const whole =
      rounding === "down" || read.flag("use_exponential_sigmas", false) ? Math.trunc : Math.round;
    const levels = converted.map((ratio) =>
      variancePreserving(whole(timeOf(tables, ratio)), float32(ratio)),
    );
    return withEnd(read, tables, levels);
  }
  const spacing = read.choice("timestep_spacing", timestepSpacings, "linspace");
  const times = spacedTimesteps(spacing, steps, {
    trainSteps,
    usable: usableSteps(read, tables),
    offset: read.number("steps_offset", 0),
    skipZero: true,
  });
  return withEnd(
    read,
    tables,
    times.map((time) => variancePreserving(time, interpolate(ratios, time))),
  );
}

/** The least distance of UniPC's first sigma from 1, where λ is infinite. */
const FROM_ONE = 1e-6;

/** Levels of UniPC for a flow. Releases of diffusers that know "shift_terminal", which they write even if it is null, begin at 1. */
export function unipcFlowLevels(read: FieldReader, steps: number): NoiseLevel[] {
  const trainSteps = read.count("num_train_timesteps", 1000);
  const shift = read.number("flow_shift", 1);
  const early = !read.isNull("shift_terminal") && !read.has("shift_terminal");
  const own = early
    ? linspace(1, 1 / trainSteps, steps + 1)
        .map((alpha) => 1 - alpha)
        .toReversed()
    : linspace(1, 1 / trainSteps, steps + 1);
  const shifted = own.slice(0, steps).map((time) => shiftTime(time, shift));
  const terminal = read.number("shift_terminal", 0);
  const sigmas = (terminal === 0 ? shifted : stretchedTo(terminal, shifted)).map((sigma) =>
    Math.min(sigma, 1 - FROM_ONE),
  );
  return [...sigmas.map((sigma) => wholeTime(sigma, trainSteps)), clean];
}

function wholeTime(sigma: number, trainSteps: number): NoiseLevel {
  return straight(Math.trunc(sigma * trainSteps), float32(sigma));
}

export interface FlowMatchOptions {
  /** The shift of a config whose shift depends on the image; otherwise it is already applied to the last time. */
  readonly dynamic?: number | undefined;
  /** Replaces the config's shift. */
  readonly given?: number | undefined;
  /** Spaces the sigmas evenly from 1 to 1 / steps before the shift, as the pipelines of FLUX ask for. */
  readonly evenSigmas?: boolean;
}

/** Levels of rectified flow. */
export function flowMatchLevels(
  read: FieldReader,
  steps: number,
  { dynamic, given, evenSigmas = false }: FlowMatchOptions,
): NoiseLevel[] {
  const timeScale = read.count("num_train_timesteps", 1000);
  const shift = dynamic ?? given ?? read.number("shift", 1);
  const last = dynamic === undefined ? float32(shiftTime(1 / timeScale, shift)) : 1 / timeScale;
  const lowest = evenSigmas ? 1 / steps : last;
  const terminal = read.number("shift_terminal", 0);
  const levels = flowLevels(steps, { shift, lowest, ...(terminal !== 0 && { terminal }) });
  const sigmas = levels.slice(0, -1).map(({ sigma }) => sigma);
  const converted = convertedRatios(read, steps, sigmas[0]!, sigmas.at(-1)!);
  return [
    ...(converted ?? sigmas).map((value) => {
      const sigma = float32(value);
      return straight(float32(sigma * timeScale), sigma);
    }),
    clean,
  ];
}

/** Ratios with a spacing of their own, if the config has one. */
function convertedRatios(
  read: FieldReader,
  steps: number,
  max: number,
  min: number,
): number[] | undefined {
  if (read.flag("use_karras_sigmas", false)) return karrasRatios(steps, max, min);
  // Lu's λ, evenly spaced, is minus the logarithm of the ratio.
  const even = ["use_exponential_sigmas", "use_lu_lambdas"].some((name) => read.flag(name, false));
  return even ? exponentialRatios(steps, max, min) : undefined;
}

function timeOf({ ratios }: Tables, ratio: number): number {
  return timeOfRatio(
    ratios.map((each) => float32(Math.log(each))),
    ratio,
  );
}

/** Number of steps whose λ = log(alpha / sigma) is not below the config's bound. */
function usableSteps(read: FieldReader, { ratios, trainSteps }: Tables): number {
  const lowest = read.bound("lambda_min_clipped", -Infinity);
  return trainSteps - ratios.filter((ratio) => -Math.log(ratio) < lowest).length;
}

function withEnd(
  read: FieldReader,
  { ratios }: Tables,
  levels: readonly NoiseLevel[],
): NoiseLevel[] {
  return [...levels, endsAtZero(read) ? clean : variancePreserving(0, ratios[0]!)];
}

function endsAtZero(read: FieldReader): boolean {
  return read.choice("final_sigmas_type", ["zero", "sigma_min"], "zero") === "zero";
}
