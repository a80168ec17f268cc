/** Denoisers, which estimate the clean image that a noisy one comes from: all that a sampler asks of a network. */
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { mapValues } from "../engine/records.ts";
import { combine, type Real, rowsOf, splitChannels, stackRows } from "./arrays.ts";
import type { NoiseLevel } from "./levels.ts";
import { estimatesOf, type Parameterization } from "./parameterization.ts";

export interface Denoised {
  /** The estimate of the clean images, of x's shape. */
  readonly x0: NdArray;
  /** The estimate of the noise, if it is known more precisely than from x and x0. */
  readonly noise?: NdArray | undefined;
  /**
   * For models with a learned variance: where it lies between the smallest (−1) and the largest (1) variance of a DDPM step,
   * on a logarithmic scale (Nichol & Dhariwal, 2021, eq. 15).
   */
  readonly variance?: NdArray | undefined;
}

/** Estimates x0 from images [B, …], float32, all at one noise level. */
export type Denoiser = (x: NdArray, level: NoiseLevel) => Promise<Denoised>;

/**
 * A network under fixed conditions: images [B, C, …] at a level → its prediction [B, C, …], or [B, 2·C, …] with a learned
 * variance; or tokens [B, h, w], int64, → logits [B, codebook, h, w].
 *
 * `told` are inputs of a network that depends on more of a step than its level; `t` among them replaces the level's time.
 */
export type Network = (x: NdArray, level: NoiseLevel, told?: Conditions) => Promise<NdArray>;

/**
 * Makes a denoiser of a network.
 *
 * @example const denoise = denoiserOf(async (x, { time }) => (await program.run({ x, t: full(time) })).output, "epsilon");
 */
export function denoiserOf(
  network: Network,
  parameterization: Parameterization,
  {
    learnedVariance = false,
  }: {
    /** True if the second half of the output channels is a variance. */
    readonly learnedVariance?: boolean;
  } = {},
): Denoiser {
  return async (x, level) => {
    const output = await network(x, level);
    const [prediction, variance] = learnedVariance
      ? splitChannels(output, x.shape[1]!)
      : [output, undefined];
    return { ...estimatesOf(parameterization, level, x, prediction), variance };
  };
}

/** A network's inputs beside images and times by name: arrays with one row for each image. */
export type Conditions = Readonly<Record<string, NdArray>>;

/** Runs a network on rows: `x` and times `t` [B], float32, and conditions → its prediction. */
export type RunRows = (inputs: Readonly<Record<string, NdArray>>) => Promise<NdArray>;

/**
 * Runs several inputs, which have the same names and rows of the same shapes, as one run of all their rows.
 *
 * @returns the outputs of each
 */
export async function runTogether<O extends Conditions>(
  run: (inputs: Conditions) => Promise<O>,
  parts: readonly Conditions[],
): Promise<O[]> {
  const names = Object.keys(parts[0]!);
  const stacked = names.map((name) => stackRows(parts.map((inputs) => inputs[name]!)));
  const outputs = await run(Object.fromEntries(names.map((name, i) => [name, stacked[i]!])));
  let from = 0;
  return parts.map((inputs) => {
    const count = inputs[names[0]!]!.shape[0]!;
    const own = mapValues(outputs, (array) => rowsOf(array, from, count)) as unknown as O;
    from += count;
    return own;
  });
}

interface PendingRun {
  readonly inputs: Readonly<Record<string, NdArray>>;
  readonly answer: (output: NdArray) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * One network under several conditions. Calls that are made at the same time, such as the two of guidance, become one run of
 * all their rows: every weight is read once, and twice as many rows take less than twice the time.
 *
 * @returns a function from conditions, which must have the same names each time, to the network under them
 * @example
 * const network = batchedNetwork(async (inputs) => (await program.run(inputs)).output);
 * const [conditional, unconditional] = [{ y: classes }, { y: none }].map((y) => denoiserOf(network(y), "flow"));
 * const denoise = guided(conditional, unconditional, { scale: 4 });
 */
export function batchedNetwork(run: RunRows): (conditions: Conditions) => Network {
  let pending: PendingRun[] = [];
  const runAll = async () => {
    const runs = pending;
    pending = [];
    try {
      const outputs = await runTogether(
        async (inputs) => ({ output: await run(inputs) }),
        runs.map(({ inputs }) => inputs),
      );
      for (const [i, { answer }] of runs.entries()) answer(outputs[i]!.output);
    } catch (error) {
      for (const { fail } of runs) fail(error);
    }
  };
  return (conditions) => (x, level, told) =>
    new Promise((answer, fail) => {
      const count = x.shape[0]!;
      const t = ndarray("float32", [count], new Array<number>(count).fill(level.time));
      const shown = x.dtype === "int64" ? x : castArray(x, "float32");
      const inputs = { ...conditions, t, ...told, x: shown };
      pending.push({ inputs, answer, fail });
      // Calls at the same time are made before the next microtask.
      if (pending.length === 1) queueMicrotask(() => void runAll());
    });
}

/**
 * Splits the rows of each run across several copies of one program; a copy that is free takes the next rows. If each copy
 * computes with one thread, no thread waits for another after every op, as the threads of one program do, which on a busy
 * machine is most of their time.
 *
 * @param copies of the program; they run at the same time if each is in a worker
 */
export function splitAcrossCopies(copies: readonly RunRows[]): RunRows {
  return async (inputs) => {
    const rows = inputs["x"]!.shape[0]!;
    const outputs: NdArray[] = [];
    let [parts, next] = [0, 0];
    const work = async (run: RunRows) => {
      while (next < rows) {
        const [part, from] = [parts++, next];
        // Many rows at first, because these are faster together, and few at last, so that all copies end at the same time.
        const count = Math.ceil((rows - from) / (2 * copies.length));
        next += count;
        const own = Object.entries(inputs).map(
          ([name, array]) => [name, rowsOf(array, from, count)] as const,
        );
        try {
          outputs[part] = await run(Object.fromEntries(own));
        } catch (error) {
          next = rows;
          throw error;
        }
      }
    };
    await Promise.all(copies.map(work));
    return stackRows(outputs);
  };
}

/** The noise in x that an estimate of x0 implies. */
export function noiseOf(
  { x0, noise }: Denoised,
  x: NdArray,
  { alpha, sigma }: NoiseLevel,
): NdArray<Real> {
  return noise ? combine([1, noise]) : combine([1 / sigma, x], [-alpha / sigma, x0]);
}
