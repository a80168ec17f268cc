/** Drawing with the network of a mean flow, which takes the end of each step as an input and has guidance built in. */
import type { Network } from "../diffusion/denoiser.ts";
import { type NoiseInterval, type NoiseLevel, straight } from "../diffusion/levels.ts";
import { withLowestTime } from "../diffusion/lowest-time.ts";
import { LOWEST_TIME } from "../diffusion/mean-flow.ts";
import { samplerNamed } from "../diffusion/samplers/index.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import { ndarray } from "../engine/arrays/ndarray.ts";
import { quote, UsageError } from "../engine/errors.ts";

/** The times between which MiniT2I's mean flow guides, where a request names none. */
const guidedTimes = { from: 0.2, to: 0.8 };

/**
 * A network whose inputs at each level are the span to the next one, the guidance, and the times between which it guides.
 *
 * @param levels of a flow through which it is drawn, noisiest first
 * @param options.interval ratios of noise to signal between which it guides
 */
export function meanFlowNetwork(
  network: Network,
  levels: readonly NoiseLevel[],
  options: { readonly guidance: number; readonly interval?: NoiseInterval | undefined },
): Network {
  const { guidance, interval } = options;
  const timeOf = (ratio: number) => (ratio === Infinity ? 1 : ratio / (1 + ratio));
  const { from, to } = interval
    ? { from: timeOf(interval.above), to: timeOf(interval.upTo) }
    : guidedTimes;
  const toldOf: Network = (x, level) => {
    const [rows] = x.shape as readonly [number];
    const next = levels.find(({ sigma }) => sigma < level.sigma) ?? straight(0, 0);
    const each = (value: number) => ndarray("float32", [rows], new Array<number>(rows).fill(value));
    const told = { guidance: each(guidance), from: each(from), to: each(to) };
    return network(x, level, { ...told, span: each(level.sigma - next.sigma) });
  };
  return withLowestTime(toldOf, LOWEST_TIME);
}

/** @throws UsageError for a sampler other than Euler's, whose steps alone are those of a mean flow */
export function meanFlowSampler(name: string): Sampler {
  if (name === "euler") return samplerNamed(name);
  throw new UsageError(
    `There is no sampler ${quote(name)} for a mean flow, whose network predicts whole steps; give euler, or leave it out.`,
  );
}

/** The settings of guidance by a second run of the network. */
const guidedTwice = ["negativePrompt", "rescale", "guidedChannels"] as const;

/** @throws UsageError for a setting that needs a run of the network without its condition */
export function checkGuidingItself(
  given: { readonly [S in (typeof guidedTwice)[number]]?: unknown },
  model: string,
): void {
  const setting = guidedTwice.find((each) => given[each] !== undefined);
  if (setting === undefined) return;
  throw new UsageError(
    `${setting} does not apply to ${model}, whose network guides itself and never draws without its condition; leave it out.`,
  );
}
