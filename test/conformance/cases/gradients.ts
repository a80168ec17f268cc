/** The gradients of every op, on the graphs whose gradients agree with finite differences. */
import { isFloat } from "../../../src/engine/arrays/ndarray.ts";
import { backpropagate } from "../../../src/engine/gradients/gradient.ts";
import type { OpName } from "../../../src/engine/graph/ops.ts";
import type { Tensor } from "../../../src/engine/graph/tensor.ts";
import { type GradientCase, gradientCases } from "../../support/gradient-cases.ts";
import type { Case, CaseData } from "../case.ts";

/** A convolution's gradient is refused an empty batch. */
const refusesEmpty: ReadonlySet<OpName> = new Set(["conv", "convTranspose"]);

/** All graphs of an op as one program, so that a slow device makes one session for them. */
function gradientCase(op: OpName, tests: readonly GradientCase[], name = op as string): Case {
  return {
    name: `gradient of ${name}`,
    scale: 1,
    ...(refusesEmpty.has(op) ? { batches: [3, 1, 3] } : {}),
    build: (data) =>
      Object.assign({}, ...tests.map((test) => gradientsOf(test, data))) as Record<string, Tensor>,
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

const { cast, ...others } = gradientCases;

export const gradientConformance: readonly Case[] = [
  ...(Object.keys(others) as (keyof typeof others)[])
    .filter((op) => others[op].length > 0)
    .map((op) => gradientCase(op, others[op])),
  // One by one, since not every device has all the dtypes.
  ...cast.map((test) => gradientCase("cast", [test], `cast ${test.name}`)),
];
