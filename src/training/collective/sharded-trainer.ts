/**
 * A trainer whose optimizer is divided among ranks (Rajbhandari et al., 2020, "ZeRO", stage 1): each rank updates its part of the weights
 * by the sum of all ranks' gradients, keeps the moments and averages of that part alone, and hands the new weights to the others.
 */
import { type NdArray, scalar, zeros } from "../../engine/arrays/ndarray.ts";
import { release } from "../../engine/arrays/release.ts";
import { type Graph, leafName } from "../../engine/graph/graph.ts";
import { resolve } from "../../engine/graph/shape.ts";
import { mapValues, pick, prefixed, recordOf } from "../../engine/records.ts";
import type { Backend, Program } from "../../engine/runtime/backend.ts";
import {
  type Arrays,
  gradientPrefix,
  type StepPart,
  type TrainingStep,
  weightPrefix,
} from "../step.ts";
import {
  counting,
  isTrainerState,
  numberIn,
  parametersOf,
  type Runner,
  stepInput,
  type Trainer,
  type TrainerOptions,
  type TrainerState,
} from "../trainer.ts";
import { askForState, type Collective, fromRank } from "./collective.ts";
import { groupsOf, type Shards, shardsOf, sumParts, viewsOf } from "./shards.ts";

type Options = Pick<TrainerOptions, "threads" | "weights">;

/**
 * Compiles a step for one of several ranks, which starts from the given weights or state, the same in all ranks. All ranks make the
 * same calls, except that rank 0 may call `readState` while the others wait in `agreed`, which then calls it in them.
 */
export async function createShardedTrainer(
  backend: Backend,
  step: TrainingStep,
  from: Arrays | TrainerState,
  collective: Collective,
  given: Options,
): Promise<Trainer> {
  const options = { ...step.stored, ...given };
  const { rank, size } = collective;
  // Each gradient is a share of the mean over the step's batches and ranks, so that their sum is the mean.
  const { gradient } = step.halves(1 / (size * step.accumulate));
  const shapes = shapesIn(gradient);
  const lengths = mapValues(shapes, (shape) => shape.reduce((a, b) => a * b, 1));
  const shards = shardsOf(lengths, size);
  const names = shards.parts[rank]!.map(({ name }) => name);
  const resumed = isTrainerState(from);
  const state = resumed ? from.state : await step.initialState(backend, from, names);
  const weights = weightsIn(shards, shapes);
  const gradients = await openGradients(backend, gradient, Object.keys(shapes), options);
  const update = await openUpdate(backend, step, groupsOf(shards.parts[rank]!), state, options);
  const runner = runnerOf({
    collective,
    shards,
    shapes,
    weights,
    gradients,
    update,
    clips: step.clips,
  });
  await runner.writeState(pick(state, (name) => name in shapes));
  return counting(runner, step, resumed ? from.step : 0);
}

function shapesIn({ outputs }: Graph): Record<string, readonly number[]> {
  const gradients = pick(outputs, (name) => name.startsWith(gradientPrefix));
  return Object.fromEntries(
    Object.entries(gradients).map(([name, { shape }]) => [
      name.slice(gradientPrefix.length),
      resolve(shape, undefined),
    ]),
  );
}

/** All weights, in one buffer with a part for each rank. */
interface Weights {
  readonly buffer: Float32Array;
  readonly byName: Arrays;
}

function weightsIn({ parts, length }: Shards, shapes: ReturnType<typeof shapesIn>): Weights {
  const buffer = new Float32Array(length * parts.length);
  const views = parts.map((part, i) => viewsOf(part, buffer, i * length, shapes));
  return { buffer, byName: Object.assign({}, ...views) as Arrays };
}

type Floats = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

/** Computes the mean loss of a step's batches and the sums of their gradients. */
async function openGradients(
  backend: Backend,
  graph: Graph,
  names: readonly string[],
  options: Options,
) {
  const program = await backend.compile(graph, options);
  const taken = new Set(graph.inputs.map(leafName));
  return {
    async run(batches: readonly Arrays[], weights: Arrays) {
      let loss = 0;
      let sums: Floats | undefined;
      for (const inputs of batches) {
        const outputs = await program.run({
          ...pick(inputs, (name) => taken.has(name)),
          ...parametersOf(graph, weights),
        });
        loss += numberIn(outputs["loss"]!) / batches.length;
        const own = recordOf(names, (name) => floatsOf(outputs[gradientPrefix + name]!));
        if (sums) addTo(sums, own);
        sums ??= own;
      }
      return { loss, sums: sums! };
    },
    dispose: () => program.dispose(),
  };
}

function addTo(sums: Floats, others: Floats): void {
  for (const [name, sum] of Object.entries(sums)) {
    const other = others[name]!;
    for (let i = 0; i < sum.length; i++) sum[i]! += other[i]!;
  }
  release(Object.values(others));
}

function floatsOf({ data }: NdArray): Float32Array<ArrayBuffer> {
  return data as Float32Array<ArrayBuffer>;
}

/** The update of the weights of this rank. */
interface Update {
  /** The sum of the squares of gradients; 0 for a step that does not clip. */
  squares(gradients: Arrays): Promise<number>;
  /** Updates moments and averages, and gives the new weights to `take`, which may not keep them. */
  run(inputs: Arrays, count: number, take: (weights: Floats) => void): Promise<void>;
  readState(): Promise<Arrays>;
  writeState(values: Arrays): Promise<void>;
  dispose(): Promise<void>;
}

/**
 * Compiles the update in groups of weights: ONNX Runtime returns copies of all that a run writes, which are freed after each group, and
 * written into the same memory, still in the cache, by the next one.
 */
async function openUpdate(
  backend: Backend,
  step: TrainingStep,
  groups: readonly (readonly string[])[],
  from: Arrays,
  options: Options,
): Promise<Update> {
  const { norm } = step.part(groups.flat());
  const squares = norm && groups.length > 0 ? await backend.compile(norm, options) : undefined;
  const parts: {
    readonly graph: Graph;
    readonly state: StepPart["state"];
    readonly program: Program;
  }[] = [];
  for (const names of groups) {
    const { update: graph, state } = step.part(names);
    const initialState = pick(from, (name) => name in state);
    const program = await backend.compile(graph, { ...options, state, initialState });
    parts.push({ graph, state, program });
  }
  return {
    async squares(gradients) {
      return squares ? numberIn((await squares.run(gradients))["squares"]!) : 0;
    },
    async run(inputs, count, take) {
      for (const { graph, program } of parts) {
        const taken = new Set([...graph.inputs, ...graph.parameters].map(leafName));
        const outputs = await program.run({
          ...pick(inputs, (name) => taken.has(name)),
          ...stepInput(graph, count),
        });
        const weights = Object.fromEntries(
          Object.entries(outputs).map(([name, array]) => [
            name.slice(weightPrefix.length),
            floatsOf(array),
          ]),
        );
        take(weights);
        release(Object.values(weights));
      }
    },
    async readState() {
      const states = [];
      for (const { program } of parts) states.push(await program.readState());
      return Object.assign({}, ...states) as Arrays;
    },
    async writeState(values) {
      for (const { program, state } of parts) {
        await program.writeState(pick(values, (name) => name in state));
      }
    },
    async dispose() {
      await squares?.dispose();
      for (const { program } of parts) await program.dispose();
    },
  };
}

interface Rank {
  readonly collective: Collective;
  readonly shards: Shards;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly weights: Weights;
  readonly gradients: Awaited<ReturnType<typeof openGradients>>;
  readonly update: Update;
  readonly clips: boolean;
}

function runnerOf({ collective, shards, shapes, weights, gradients, update, clips }: Rank): Runner {
  const own = shards.parts[collective.rank]!;
  const sums = new Float32Array(shards.length);
  const ownSums = prefixed(gradientPrefix, viewsOf(own, sums, 0, shapes));
  const ownWeights = recordOf(
    own.map(({ name }) => name),
    (name) => weights.byName[name]!,
  );
  return {
    async run(batches, count) {
      const gathered = await gradients.run(batches, weights.byName);
      sumParts(collective, shards, gathered.sums, sums);
      release(Object.values(gathered.sums));
      const squares = Float64Array.of(await update.squares(ownSums));
      if (clips) collective.sum(squares);
      const gradientNorm = clips ? Math.sqrt(squares[0]!) : undefined;
      const norm = gradientNorm !== undefined && { norm: scalar(gradientNorm) };
      const inputs = { ...batches.at(-1), ...ownSums, ...ownWeights, ...norm };
      await update.run(inputs, count, (next) => {
        for (const [name, data] of Object.entries(next)) floatsOf(ownWeights[name]!).set(data);
      });
      collective.gatherParts(weights.buffer);
      return { loss: gathered.loss, gradientNorm };
    },
    async readState() {
      askForState(collective);
      const copies = mapValues(weights.byName, ({ dtype, shape, data }) => ({
        dtype,
        shape,
        data: data.slice(),
      }));
      return { ...copies, ...handedOver(collective, await update.readState()) };
    },
    async writeState(values) {
      await update.writeState(values);
      for (const [name, array] of Object.entries(pick(values, (each) => each in shapes))) {
        floatsOf(weights.byName[name]!).set(floatsOf(array));
      }
    },
    async dispose() {
      await gradients.dispose();
      await update.dispose();
    },
  };
}

/** The arrays of all ranks, which have different names. */
function handedOver(collective: Collective, own: Arrays): Arrays {
  const all: Record<string, NdArray> = {};
  for (let rank = 0; rank < collective.size; rank++) {
    const mine = rank === collective.rank;
    const list = Object.entries(own).map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
    for (const { name, dtype, shape } of fromRank(collective, rank, list)) {
      const array = mine ? own[name]! : zeros(dtype, shape);
      const { buffer, byteOffset, byteLength } = array.data;
      collective.broadcast(new Uint8Array(buffer, byteOffset, byteLength), rank);
      // Rank 0 alone writes.
      if (mine || collective.rank === 0) all[name] = array;
    }
  }
  return all;
}
