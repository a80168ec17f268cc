/** The gradients of every op, on the graphs whose gradients agree with finite differences. */
import { isFloat } from "../../../src/engine/dtype.ts";
import { backpropagate } from "../../../src/engine/gradient.ts";
import type { OpName } from "../../../src/engine/ops.ts";
import type { Tensor } from "../../../src/engine/tensor.ts";
import { type GradientCase, gradientCases } from "../../support/gradient-cases.ts";
import type { Case, CaseData } from "../case.ts";

/** A convolution's gradient is refused an empty batch. */
const refusesEmpty: ReadonlySet<OpName> = new Set(["conv", "convTranspose"]);

/** All graphs of an op as one program, so that a slow device makes one session for them. */
function gradientCase(op: OpName): Case {
  return {
    name: `gradient of ${op}`,
    scale: 1,
    ...(refusesEmpty.has(op) ? { batches: [3, 1, 3] } : {}),
    build: (data) =>
      Object.assign({}, ...gradientCases[op].map((test) => gradientsOf(test, data))) as Record<
        string,
        Tensor
      >,
  };
}

function gradientsOf({ name, leaves, build }: GradientCase, data: CaseData) {
  const tensors = Object.fromEntries(
    Object.entries(leaves).map(([key, spec]) => [key, data.uniform(spec.shape, spec)]),
  );
  const outputs = [build(tensors as Parameters<typeof build>[0])].flat();
  const wrt = Object.entries(tensors).filter(([, tensor]) => isFloat(tensor.dtype));
  const found = backpropagate(
    outputs,
    outputs.map(({ shape, dtype }) => data.uniform(shape, { dtype })),
    wrt.map(([, tensor]) => tensor),
  );
  return Object.fromEntries(wrt.map(([key], i) => [`${name}, d${key}`, found[i]!]));
}

export const gradientConformance: readonly Case[] = (Object.keys(gradientCases) as OpName[])
  .filter((op) => gradientCases[op].length > 0)
  .map(gradientCase);
