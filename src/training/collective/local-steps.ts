/**
 * Local steps (DiLoCo; Douillard et al., 2023, arXiv 2311.08105), for links that are too slow to exchange gradients in every step: each rank
 * takes some steps on its own rows, then all ranks move from where they last agreed along the mean of their ways, by SGD with Nesterov
 * momentum. Moments and averages become the means of the ranks, so that all ranks have one state then.
 */
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { mapValues, pick, prefixed } from "../../engine/records.ts";
import { type Arrays, emaPrefix, optimizerPrefix } from "../step.ts";
import { isTrainerState, type Trainer, type TrainerState } from "../trainer.ts";
import { type Collective, sumInPlace } from "./collective.ts";

/** How ranks that train on their own come together. */
export interface LocalSteps {
  /** Steps between two meetings. */
  readonly steps: number;
  /** The rate of the common step; 1 takes the mean of the ranks, if the momentum is 0. */
  readonly rate: number;
  /** Decay of the common step's momentum, in [0, 1). */
  readonly momentum: number;
}

/** The names of the common momentum in the state begin with this. */
const outerPrefix = "outer/";

/** A trainer whose ranks have one state only after every so many steps. */
export interface LocalTrainer extends Trainer {
  /** Brings the ranks together, if their last step did not. All ranks call it after the same step. */
  meet(): Promise<void>;
}

/**
 * Wraps the trainer of a rank, which must be the same in all ranks at first.
 *
 * @param from the weights or the state that it started from, which may hold the momentum of an interrupted training
 */
export async function localTrainer(
  trainer: Trainer,
  { steps, rate, momentum: decay }: LocalSteps,
  collective: Collective | undefined,
  from: Arrays | TrainerState,
): Promise<LocalTrainer> {
  const isWeight = (name: string) =>
    !name.startsWith(optimizerPrefix) && !name.startsWith(emaPrefix);
  const common = mapValues(pick(await trainer.readState(), isWeight), floats);
  const before: Arrays = isTrainerState(from) ? from.state : {};
  const velocity = mapValues(common, (data, name) => {
    const given = before[outerPrefix + name];
    return given ? floats(given) : new Float32Array(data.length);
  });
  let count = isTrainerState(from) ? from.step : 0;
  let apart = false;
  const meet = async () => {
    if (!apart) return;
    apart = false;
    const state = await trainer.readState();
    for (const [name, array] of Object.entries(state)) {
      const data = floats(array);
      if (collective) takeMean(collective, data);
      if (isWeight(name)) step(common[name]!, velocity[name]!, data, rate, decay);
    }
    await trainer.writeState(state);
  };
  return {
    ...trainer,
    async step(...batches) {
      const result = await trainer.step(...batches);
      count++;
      apart = true;
      if (count % steps === 0) await meet();
      return result;
    },
    meet,
    async readState() {
      const state = await trainer.readState();
      const outer = mapValues(velocity, (data, name) => ({ ...state[name]!, data: data.slice() }));
      return { ...state, ...prefixed(outerPrefix, outer) };
    },
  };
}

/** Moves the common weights, and writes them over those that the ranks have reached in the mean. */
function step(
  common: Float32Array,
  velocity: Float32Array,
  reached: Float32Array,
  rate: number,
  decay: number,
): void {
  for (let i = 0; i < common.length; i++) {
    const way = common[i]! - reached[i]!;
    velocity[i] = decay * velocity[i]! + way;
    common[i]! -= rate * (way + decay * velocity[i]!);
  }
  reached.set(common);
}

function takeMean(collective: Collective, data: Float32Array): void {
  sumInPlace(collective, data);
  for (let i = 0; i < data.length; i++) data[i]! /= collective.size;
}

function floats({ data }: NdArray): Float32Array {
  return data as Float32Array;
}
