/** Optimizers, as pairs of pure functions on trees of tensors, and the schedule of the learning rate. */
import { concat, input, zerosLike } from "../engine/graph/functional.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { mapValues, pick, prefixed } from "../engine/records.ts";
import type { Tensor } from "../engine/graph/tensor.ts";

/** Tensors by name. */
export type Tree = Readonly<Record<string, Tensor>>;

/** An optimizer. Its update is traced into the graph of the training step. */
export interface Optimizer {
  /** The state before the first step: one entry for each tensor that the optimizer keeps. */
  init(params: Tree): Tree;
  /**
   * Traces one update.
   *
   * @param step the number of this step, a float scalar that starts from 1
   * @returns the new parameters and the new state
   */
  update(grads: Tree, state: Tree, params: Tree, step: Tensor): [params: Tree, state: Tree];
}

/** Applies `f` to each tensor of a tree. */
export const mapTree: (tree: Tree, f: (tensor: Tensor, name: string) => Tensor) => Tree = mapValues;

export interface AdamWOptions {
  /** A number, or a scalar tensor such as `input("rate", [])`, which each step is given. */
  readonly learningRate: number | Tensor;
  /** Decay of the running mean of the gradient. */
  readonly beta1?: number;
  /** Decay of the running mean of the squared gradient. */
  readonly beta2?: number;
  /** A number above 0 that is added to the root of the squared gradient's mean; 1e-8 by default. */
  readonly epsilon?: number;
  /** The share of each weight that a step takes away, times the learning rate; from 0, and 0 by default. */
  readonly weightDecay?: number;
}

/** The defaults of optimizers, in YAML configs as in code. `beta2` is shorter than PyTorch's 0.999, for short trainings. */
export const optimizerDefaults = {
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0,
  momentum: 0.95,
} as const;

/**
 * AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, 2019), computed as PyTorch does:
 * w ← (1 − lr·λ)·w − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + ε).
 *
 * Its state is `m.NAME` and `v.NAME`, the running means of the gradient and of its square.
 */
export function adamW(options: AdamWOptions): Optimizer {
  const { learningRate, beta1, beta2, epsilon, weightDecay } = { ...optimizerDefaults, ...options };
  return {
    init(params) {
      const zeros = mapTree(params, zerosLike);
      return { ...prefixed("m.", zeros), ...prefixed("v.", zeros) };
    },
    update(grads, state, params, step) {
      const scalar = (value: number | Tensor) =>
        typeof value === "number" ? step.mul(0).add(value) : value;
      const rate = scalar(learningRate);
      const bias1 = scalar(beta1).pow(step).neg().add(1);
      const bias2 = scalar(beta2).pow(step).neg().add(1);
      // Taking √bias2 out of √v̂ = √v/√bias2 leaves the fewest passes over each weight.
      const root = bias2.sqrt();
      const stepSize = rate.mul(root).div(bias1);
      const scaledEpsilon = root.mul(epsilon);
      const keep = rate.mul(-weightDecay).add(1);
      const newParams: Record<string, Tensor> = {};
      const newState: Record<string, Tensor> = {};
      for (const [name, w] of Object.entries(params)) {
        const g = grads[name]!;
        const m = state[`m.${name}`]!.mul(beta1).add(g.mul(1 - beta1));
        const v = state[`v.${name}`]!.mul(beta2).add(g.mul(g).mul(1 - beta2));
        newState[`m.${name}`] = m;
        newState[`v.${name}`] = v;
        newParams[name] = w.mul(keep).sub(m.mul(stepSize).div(v.sqrt().add(scaledEpsilon)));
      }
      return [newParams, newState];
    },
  };
}

export interface MuonOptions {
  /** A number, or a scalar tensor such as `input("rate", [])`, which each step is given. */
  readonly learningRate: number | Tensor;
  /** Decay of the running mean of the gradient, in [0, 1); 0.95 by default. */
  readonly momentum?: number;
  /** The share of each weight that a step takes away, times the learning rate; from 0, and 0 by default. */
  readonly weightDecay?: number;
  /** The optimizer of everything that is not a hidden matrix: biases, norms, tables, first and last layers. */
  readonly rest: Optimizer;
  /**
   * The number of matrices stacked in a weight along its first axis, each of which is orthogonalized on its own; 0 leaves the
   * weight to `rest`. By default the matrices inside the blocks of a transformer, with q, k and v as three.
   */
  readonly matricesIn?: (name: string, weight: Tensor) => number;
}

/**
 * Muon (Jordan et al., 2024): moves each matrix along its orthogonalized momentum,
 * m ← β·m + g; w ← (1 − lr·λ)·w − lr · 0.2·√max(rows, columns) · orthogonalized(g + β·m).
 *
 * The factor gives updates the size of AdamW's, so that both can share a learning rate (Liu et al., 2025, "Muon is
 * scalable for LLM training", section 2.2). Its state is `momentum.NAME` and the state of `rest`.
 */
export function muon(options: MuonOptions): Optimizer {
  const { learningRate, momentum, weightDecay, rest } = { ...optimizerDefaults, ...options };
  const { matricesIn = matricesInBlocks } = options;
  const isMatrix = (params: Tree) => (name: string) => matricesIn(name, params[name]!) > 0;
  const isOther = (params: Tree) => (name: string) => !isMatrix(params)(name);
  return {
    init: (params) => ({
      ...prefixed(momentumPrefix, mapTree(pick(params, isMatrix(params)), zerosLike)),
      ...rest.init(pick(params, isOther(params))),
    }),
    update(grads, state, params, step) {
      const hidden = pick(params, isMatrix(params));
      const newParams: Record<string, Tensor> = {};
      const newState: Record<string, Tensor> = {};
      for (const [name, w] of Object.entries(hidden)) {
        const g = grads[name]!;
        const m = state[momentumPrefix + name]!.mul(momentum).add(g);
        newState[momentumPrefix + name] = m;
        const rows = w.size(0) / matricesIn(name, w);
        const columns = sizeOf(w.shape as readonly number[]) / w.size(0);
        const direction = concat(
          g
            .add(m.mul(momentum)) // Nesterov momentum
            .reshape([w.size(0), columns])
            .split(matricesIn(name, w), 0)
            .map(orthogonalized),
          0,
        ).reshape(w.shape);
        const rate = (factor: number) =>
          typeof learningRate === "number" ? learningRate * factor : learningRate.mul(factor);
        const kept = weightDecay === 0 ? w : w.sub(w.mul(rate(weightDecay)));
        newParams[name] = kept.sub(direction.mul(rate(0.2 * Math.sqrt(Math.max(rows, columns)))));
      }
      const [restGrads, others] = [grads, params].map((tree) => pick(tree, isOther(params)));
      const [restParams, restState] = rest.update(restGrads!, state, others!, step);
      return [
        { ...newParams, ...restParams },
        { ...newState, ...restState },
      ];
    },
  };
}

const momentumPrefix = "momentum.";

/**
 * The matrices inside blocks, a convolution counting as one row an output. q, k and v are stacked in one weight; the weights
 * of modulations start at zero and are left to the other optimizer.
 */
function matricesInBlocks(name: string, { shape }: { readonly shape: readonly unknown[] }): number {
  if (shape.length < 2 || !/blocks?\.\d/.test(name) || /adaLN|emb_layers/.test(name)) return 0;
  return name.includes(".qkv.") ? 3 : 1;
}

/** Approximates the nearest orthogonal matrix by five steps of a quintic Newton-Schulz iteration, whose slope at 0 is steep. */
function orthogonalized(matrix: Tensor): Tensor {
  const [a, b, c] = [3.4445, -4.775, 2.0315];
  const tall = matrix.size(0) > matrix.size(1);
  // The product of the matrix with itself is smaller along the shorter side.
  let x = tall ? matrix.swapAxes(0, 1) : matrix;
  x = x.div(x.square().sum().sqrt().add(1e-7));
  for (let i = 0; i < 5; i++) {
    const gram = x.matmul(x, { transposeB: true });
    const polynomial = gram.mul(b).add(gram.matmul(gram).mul(c));
    x = x.mul(a).add(polynomial.matmul(x));
  }
  return tall ? x.swapAxes(0, 1) : x;
}

/** An optimizer as a training config names it. Its rate is scheduled, so it is not part of the optimizer itself. */
export type OptimizerSettings =
  | ({ readonly kind: "adamw" } & AdamWSettings)
  | ({ readonly kind: "muon"; readonly momentum: number } & AdamWSettings);

type AdamWSettings = Required<Omit<AdamWOptions, "learningRate">>;

/** The optimizer that a config names. Its learning rate is an input, `rate`, of each step. */
export function configuredOptimizer(settings: OptimizerSettings): Optimizer {
  const learningRate = input("rate", []);
  const adam = adamW({ ...settings, learningRate });
  return settings.kind === "adamw" ? adam : muon({ ...settings, learningRate, rest: adam });
}

/** The learning rate over the course of a training. */
export interface RateSchedule {
  /** The highest rate. */
  readonly rate: number;
  /** The number of steps over which the rate rises from 0. */
  readonly warmUp: number;
  readonly decay: Decay;
}

export type Decay =
  | { readonly kind: "none" }
  /** Falls to `to` times the rate over the last part of the training, a share `over` in (0, 1]. */
  | { readonly kind: "linear" | "cosine"; readonly over: number; readonly to: number };

/**
 * The learning rate of a step.
 *
 * @param step the number of the step, from 1
 * @param progress the share of the training that is done before this step, in [0, 1]
 * @example rateAt({ rate: 1e-3, warmUp: 100, decay: { kind: "cosine", over: 1, to: 0 } }, step, step / steps)
 */
export function rateAt(
  { rate, warmUp, decay }: RateSchedule,
  step: number,
  progress: number,
): number {
  const rising = Math.min(1, step / Math.max(1, warmUp));
  if (decay.kind === "none") return rate * rising;
  const fallen = Math.max(0, Math.min(1, (progress - (1 - decay.over)) / decay.over));
  const shape = decay.kind === "linear" ? 1 - fallen : (1 + Math.cos(Math.PI * fallen)) / 2;
  return rate * rising * (decay.to + (1 - decay.to) * shape);
}
