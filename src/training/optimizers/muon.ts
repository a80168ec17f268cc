/** Muon: steps along the orthogonalised momentum of each matrix (Jordan et al., 2024). */
import { concat, zerosLike } from "../../engine/graph/functional.ts";
import { sizeOf } from "../../engine/arrays/ndarray.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mapTree, type Optimizer, type Tree } from "./optimizer.ts";

export interface MuonOptions {
  /** Per step; a number, or a scalar tensor that a schedule feeds. */
  readonly learningRate: number | Tensor;
  readonly momentum?: number;
  readonly weightDecay?: number;
  /** For all that is no hidden matrix: biases, norms, tables, first and last layers. */
  readonly rest: Optimizer;
  /** How many matrices stand one upon the other in a weight, of which each is orthogonalised alone; 0 for the rest. */
  readonly matricesIn: (name: string, weight: Tensor) => number;
}

/**
 * m ← β·m + g; w ← (1 − lr·λ)·w − lr · 0.2·√max(rows, columns) · orthogonalised(g + β·m).
 *
 * The factor gives updates the size of AdamW's, so that both share a learning rate (Liu et al., 2025, "Muon is
 * scalable for LLM training", section 2.2). State: `momentum.NAME`, and that of the rest.
 */
export function muon(options: MuonOptions): Optimizer {
  const { learningRate, momentum = 0.95, weightDecay = 0, rest, matricesIn } = options;
  const [matrices, others] = [true, false].map(
    (wanted) => (tree: Tree, params: Tree) =>
      Object.fromEntries(
        Object.entries(tree).filter(([name]) => matricesIn(name, params[name]!) > 0 === wanted),
      ),
  ) as [Split, Split];
  return {
    init: (params) => ({
      ...prefixed(mapTree(matrices(params, params), zerosLike)),
      ...rest.init(others(params, params)),
    }),
    update(grads, state, params, step) {
      const hidden = matrices(params, params);
      const newParams: Record<string, Tensor> = {};
      const newState: Record<string, Tensor> = {};
      for (const [name, w] of Object.entries(hidden)) {
        const g = grads[name]!;
        const m = state[prefix + name]!.mul(momentum).add(g);
        newState[prefix + name] = m;
        const rows = w.size(0) / matricesIn(name, w);
        const columns = sizeOf(w.shape as readonly number[]) / w.size(0);
        const direction = concat(
          g
            .add(m.mul(momentum)) // Nesterov's look ahead
            .reshape([w.size(0), columns])
            .split(matricesIn(name, w), 0)
            .map(orthogonalised),
          0,
        ).reshape(w.shape);
        const rate = (factor: number) =>
          typeof learningRate === "number" ? learningRate * factor : learningRate.mul(factor);
        const kept = weightDecay === 0 ? w : w.sub(w.mul(rate(weightDecay)));
        newParams[name] = kept.sub(direction.mul(rate(0.2 * Math.sqrt(Math.max(rows, columns)))));
      }
      const [restParams, restState] = rest.update(
        others(grads, params),
        state,
        others(params, params),
        step,
      );
      return [
        { ...newParams, ...restParams },
        { ...newState, ...restState },
      ];
    },
  };
}

type Split = (tree: Tree, params: Tree) => Tree;

const prefix = "momentum.";

function prefixed(tree: Tree): Tree {
  return Object.fromEntries(Object.entries(tree).map(([name, value]) => [prefix + name, value]));
}

/** Near the closest orthogonal matrix: five steps of a quintic Newton-Schulz iteration, whose slope at 0 is steep. */
function orthogonalised(matrix: Tensor): Tensor {
  const [a, b, c] = [3.4445, -4.775, 2.0315];
  const tall = matrix.size(0) > matrix.size(1);
  // The product with itself is smaller on the shorter side.
  let x = tall ? matrix.swapAxes(0, 1) : matrix;
  x = x.div(x.square().sum().sqrt().add(1e-7));
  for (let i = 0; i < 5; i++) {
    const gram = x.matmul(x, { transposeB: true });
    const polynomial = gram.mul(b).add(gram.matmul(gram).mul(c));
    x = x.mul(a).add(polynomial.matmul(x));
  }
  return tall ? x.swapAxes(0, 1) : x;
}
