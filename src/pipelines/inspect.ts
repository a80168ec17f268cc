/** What happened in one step of a drawing: the estimates that guidance compared, the velocity, and intermediate tensors. */
import type { CacheCount } from "../diffusion/step-cache.ts";
import { combine, rowsOf } from "../diffusion/arrays.ts";
import type { NoiseLevel } from "../diffusion/levels.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import { mapValues } from "../engine/records.ts";
import type { GuidedNetworks, SamplingProcess, SamplingRun } from "./process.ts";

export interface InspectOptions {
  /**
   * Names of intermediate tensors, such as "blocks.*.attn.probabilities"; `*` stands for anything but dots, `**` for anything.
   * None by default.
   */
  readonly taps?: readonly string[];
}

/** What a network made of the noisy pictures of a step under one condition. */
export interface InspectedNetwork {
  /** The estimate of the clean pictures, [count, channels, height, width]. */
  readonly x0: NdArray;
  /** The tensors asked for, by name; attention probabilities are [count, heads, tokens, tokens]. */
  readonly taps: Readonly<Record<string, NdArray>>;
}

/** What happened in a step. All arrays are of pixels in about [−1, 1], or of latents, with a row for each picture. */
export interface StepInspection {
  /** The level at which the step began: x = alpha · x0 + sigma · noise. */
  readonly level: NoiseLevel;
  /** What the step began with. */
  readonly x: NdArray;
  /** The estimate of the clean pictures that the step used, guidance included. */
  readonly x0: NdArray;
  /** noise − x0, by which rectified flow moves from noise to picture. */
  readonly velocity: NdArray;
  readonly conditional: InspectedNetwork;
  /** Absent where the model cannot leave its condition out. */
  readonly unconditional?: InspectedNetwork | undefined;
}

/** The beginning of a step and the estimate that it used. */
export interface Moment {
  readonly level: NoiseLevel;
  readonly x: NdArray;
  readonly x0: NdArray;
}

/** The networks of a run whose programs also return taps, with a function for the taps of their last run. */
export interface TappedNetworks extends GuidedNetworks {
  /** Rows of the conditional network, followed by those of the unconditional one. */
  readonly taps: () => Readonly<Record<string, NdArray>>;
  /** How often the cache, if there is one, stood in for the network so far. */
  readonly cached: CacheCount | undefined;
}

/**
 * Runs the networks of a step once more, by themselves and with taps.
 *
 * @param both whether the unconditional network exists
 * @throws UsageError for a process of discrete tokens
 */
export async function inspectStep(
  { level, x, x0 }: Moment,
  process: SamplingProcess,
  run: SamplingRun,
  networks: TappedNetworks,
  both: boolean,
): Promise<StepInspection> {
  if (!process.separate) {
    throw new UsageError(
      "Steps of a model of discrete tokens cannot be inspected, since they have no velocity; inspect a model of pixels or latents.",
    );
  }
  const { conditional, unconditional } = process.separate(networks, run);
  const [own, other] = await Promise.all([
    conditional(x, level),
    both ? unconditional(x, level) : undefined,
  ]);
  const count = x.shape[0]!;
  const tapsFrom = (row: number) => mapValues(networks.taps(), (tap) => rowsOf(tap, row, count));
  const { alpha, sigma } = level;
  return {
    level,
    x,
    x0,
    // noise = (x − alpha · x0) / sigma
    velocity: combine([1 / sigma, x], [-alpha / sigma - 1, x0]),
    conditional: { x0: own.x0, taps: tapsFrom(0) },
    ...(other && { unconditional: { x0: other.x0, taps: tapsFrom(count) } }),
  };
}
