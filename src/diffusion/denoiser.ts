/** The one question that samplers ask: which clean image does this noisy one come from? */
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { combine, type Real, rowsOf, splitChannels, stackRows } from "./arrays.ts";
import type { NoiseLevel } from "./levels.ts";
import { estimatesOf, type Parameterization } from "./parameterization.ts";

export interface Denoised {
  /** The estimate of the clean images, of x's shape. */
  readonly x0: NdArray;
  /** The estimate of the noise, where it is known apart from x0; else it is what x0 implies. */
  readonly noise?: NdArray | undefined;
  /**
   * Where the model learns a variance: its place between the smallest (−1) and the largest (1) one that a DDPM step may
   * have, on a logarithmic scale (Nichol & Dhariwal, 2021, eq. 15).
   */
  readonly variance?: NdArray | undefined;
}

/** Estimates x0 of images [B, …], float32, all at one noise level. */
export type Denoiser = (x: NdArray, level: NoiseLevel) => Promise<Denoised>;

/**
 * A network: images [B, C, …] at a level → its prediction [B, C, …], with a learned variance [B, 2·C, …]; or tokens
 * [B, h, w], int64, → logits [B, codebook, h, w].
 */
export type Network = (x: NdArray, level: NoiseLevel) => Promise<NdArray>;

/**
 * The denoiser of a network.
 *
 * @param options.learnedVariance whether the second half of the output channels is a variance
 * @example const denoise = denoiserOf(async (x, { time }) => (await program.run({ x, t: full(time) })).output, "epsilon");
 */
export function denoiserOf(
  network: Network,
  parameterization: Parameterization,
  { learnedVariance = false }: { readonly learnedVariance?: boolean } = {},
): Denoiser {
  return async (x, level) => {
    const output = await network(x, level);
    const [prediction, variance] = learnedVariance
      ? splitChannels(output, x.shape[1]!)
      : [output, undefined];
    return { ...estimatesOf(parameterization, level, x, prediction), variance };
  };
}

/** What a network is told beside images and times: by name, arrays with a row an image. */
export type Conditions = Readonly<Record<string, NdArray>>;

/** Runs a network on rows: `x` and times `t` [B], float32, and conditions → its prediction. */
export type RunRows = (inputs: Readonly<Record<string, NdArray>>) => Promise<NdArray>;

interface Question {
  readonly count: number;
  readonly inputs: Readonly<Record<string, NdArray>>;
  readonly answer: (output: NdArray) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * One network under several conditions. Questions that are asked at once, as guidance asks two, become one run of all
 * their rows: every weight is read once, and a product of twice as many rows takes less than twice the time.
 *
 * @returns the network under conditions, which have the same names each time
 * @example
 * const told = batchedNetwork(async (inputs) => (await program.run(inputs)).output);
 * const [wanted, free] = [{ y: classes }, { y: none }].map((y) => denoiserOf(told(y), "flow"));
 * const denoise = guided(wanted, free, { scale: 4 });
 */
export function batchedNetwork(run: RunRows): (conditions: Conditions) => Network {
  let asked: Question[] = [];
  const answerAll = async () => {
    const questions = asked;
    asked = [];
    try {
      const names = Object.keys(questions[0]!.inputs);
      const rows = names.map((name) => stackRows(questions.map(({ inputs }) => inputs[name]!)));
      const output = await run(Object.fromEntries(names.map((name, i) => [name, rows[i]!])));
      let from = 0;
      for (const { count, answer } of questions) {
        answer(rowsOf(output, from, count));
        from += count;
      }
    } catch (error) {
      for (const { fail } of questions) fail(error);
    }
  };
  return (conditions) => (x, level) =>
    new Promise((answer, fail) => {
      const count = x.shape[0]!;
      const t = ndarray("float32", [count], new Array<number>(count).fill(level.time));
      const shown = x.dtype === "int64" ? x : castArray(x, "float32");
      const inputs = { ...conditions, x: shown, t };
      asked.push({ count, inputs, answer, fail });
      // What is asked at once is asked before the next microtask.
      if (asked.length === 1) queueMicrotask(() => void answerAll());
    });
}

/**
 * Deals the rows of each run to several copies of one program, some to whichever is free. Where each copy computes with
 * one thread, no thread waits for another after every op, as the threads of one program do: on a busy machine that is
 * most of the time.
 *
 * @param copies run at the same time where each is in a worker
 */
export function splitAcrossCopies(copies: readonly RunRows[]): RunRows {
  return async (inputs) => {
    const rows = inputs["x"]!.shape[0]!;
    const outputs: NdArray[] = [];
    let [parts, next] = [0, 0];
    const work = async (run: RunRows) => {
      while (next < rows) {
        const [part, from] = [parts++, next];
        // Many rows at first, which are faster together, and few at last, lest all wait for one copy.
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

/** The noise in x that goes with an estimate of x0. */
export function noiseOf(
  { x0, noise }: Denoised,
  x: NdArray,
  { alpha, sigma }: NoiseLevel,
): NdArray<Real> {
  return noise ? combine([1, noise]) : combine([1 / sigma, x], [-alpha / sigma, x0]);
}
