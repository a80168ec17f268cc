import { describe, expect, it } from "vitest";
import { isFloat, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { formatShape, isStatic, resolve } from "../../src/engine/graph/shape.ts";
import { full, input, parameter } from "../../src/engine/graph/functional.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { randomArray } from "../support/arrays.ts";
import { finiteDifferences, runWith, type Values } from "../support/finite-differences.ts";
import { type GradientCase, gradientCases } from "../support/gradient-cases.ts";

const TOLERANCE = 1e-8;

/** Σ tensor·projection, with one projection leaf a tensor, so that no part of a gradient cancels. */
function project(tensors: readonly Tensor[], name: string) {
  const projections = tensors.map((t, i) => input(`${name}${i}`, t.shape, t.dtype));
  const sums = tensors.map((t, i) => t.mul(projections[i]!).sum().cast("float64"));
  return {
    projections,
    loss: sums.reduce((a, b) => a.add(b), full([], 0, "float64")),
  };
}

/** Leaves of a case in float64, its outputs, and random values for a batch size. */
function instantiate({ leaves, build }: GradientCase) {
  const tensors = Object.entries(leaves).map(([name, { shape, dtype, parameter: isWeight }]) =>
    (isWeight ? parameter : input)(name, shape, dtype ?? "float64"),
  );
  const byName = Object.fromEntries(Object.keys(leaves).map((name, i) => [name, tensors[i]!]));
  const outputs = [build(byName as Parameters<typeof build>[0])].flat();
  const values = (extra: readonly Tensor[], batchSize: number | undefined): Values =>
    Object.fromEntries(
      [...tensors, ...extra].map((t, i) => {
        const name = leafName(t);
        const { low, high } = leaves[name] ?? {};
        const dtype = isFloat(t.dtype) ? "float64" : t.dtype;
        return [name, randomArray(17 + i, dtype, resolve(t.shape, batchSize), low, high)];
      }),
    );
  return { tensors, outputs, values, wrt: tensors.filter((t) => isFloat(t.dtype)) };
}

/** Compares every element of `gradients` with finite differences of the loss. */
function expectAgreement(
  loss: Tensor,
  wrt: readonly Tensor[],
  gradients: readonly Tensor[],
  values: Values,
): void {
  const graph = graphOf(Object.fromEntries(gradients.map((g, i) => [String(i), g])));
  const found = runWith(graph, values);
  for (const [i, leaf] of wrt.entries()) {
    expect(formatShape(gradients[i]!.shape)).toBe(formatShape(leaf.shape));
    expect(gradients[i]!.dtype).toBe(leaf.dtype);
    const expected = finiteDifferences(loss, leaf, values);
    const actual = toNumbers(found[String(i)]!);
    expect(actual.length).toBe(expected.length);
    for (const [j, value] of actual.entries()) {
      const error = Math.abs(value - expected[j]!) / (1 + Math.abs(value));
      expect(error, `∂/∂${leafName(leaf)}[${j}]: ${value} against ${expected[j]}`).toBeLessThan(
        TOLERANCE,
      );
    }
  }
}

describe.each(Object.entries(gradientCases))("the gradient of %s", (op, cases) => {
  it.each(cases.map((c) => [c.name, c] as const))("%s", (_, testCase) => {
    const { outputs, values, wrt } = instantiate(testCase);
    expect(
      graphOf(Object.fromEntries(outputs.map((t, i) => [i, t]))).nodes.map((n) => n.op),
    ).toContain(op);
    const first = project(outputs, "projection");
    const gradients = gradient(first.loss, wrt);
    const second = project(gradients, "direction");
    const all = [...wrt, ...first.projections];
    const again = gradient(second.loss, all);
    const { batches = [0, 1, 3], leaves } = testCase;
    const sizes = Object.values(leaves).some(({ shape }) => !isStatic(shape))
      ? batches
      : [undefined];
    for (const batchSize of sizes) {
      const given = values([...first.projections, ...second.projections], batchSize);
      expectAgreement(first.loss, wrt, gradients, given);
      expectAgreement(second.loss, all, again, given);
    }
  });
});
