import { describe, expect, it } from "vitest";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { ndarray, scalar, toNumbers, zeros } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { adamW, muon } from "../../src/training/optimizers.ts";

/** One update from given gradients; every weight begins at 0, so that what is left is the step itself. */
function update(
  shapes: Readonly<Record<string, readonly number[]>>,
  matrices: Readonly<Record<string, number>>,
) {
  const params = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, parameter(name, shape)]),
  );
  const grads = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, input(`g.${name}`, shape)]),
  );
  const optimizer = muon({
    learningRate: 1,
    momentum: 0.9,
    rest: adamW({ learningRate: 1, weightDecay: 0 }),
    matricesIn: (name) => matrices[name] ?? 0,
  });
  const first = optimizer.init(params);
  const held = Object.fromEntries(
    Object.entries(first).map(([name, { shape }]) => [name, input(`s.${name}`, shape)]),
  );
  const [next, state] = optimizer.update(grads, held, params, input("step", []));
  const drawn = Object.fromEntries(
    Object.entries(shapes).map(([name, shape], i) => [`g.${name}`, normal(randomKey(3, i), shape)]),
  );
  const known = {
    ...Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, zeros("float32", shape)]),
    ),
    ...Object.fromEntries(
      Object.entries(first).map(([name, { shape }]) => [
        `s.${name}`,
        zeros("float32", shape as number[]),
      ]),
    ),
    ...drawn,
    step: scalar(1),
  };
  const graph = graphOf({ ...next });
  const leaves = new Set([...graph.inputs, ...graph.parameters].map(leafName));
  const used = Object.fromEntries(Object.entries(known).filter(([name]) => leaves.has(name)));
  const results = evaluate(graph, used);
  return { results, drawn, state };
}

/** Singular values of a matrix, by Jacobi rotations of its columns. */
function singularValues(values: readonly number[], rows: number, columns: number): number[] {
  const column = Array.from({ length: columns }, (_, j) =>
    Array.from({ length: rows }, (_unused, i) => values[i * columns + j]!),
  );
  const dot = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < columns; p++) {
      for (let q = p + 1; q < columns; q++) {
        const [a, b] = [column[p]!, column[q]!];
        const [alpha, beta, gamma] = [dot(a, a), dot(b, b), dot(a, b)];
        if (Math.abs(gamma) < 1e-15) continue;
        const zeta = (beta - alpha) / (2 * gamma);
        const t = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t);
        column[p] = a.map((x, i) => c * (x - t * b[i]!));
        column[q] = a.map((x, i) => c * (t * x + b[i]!));
      }
    }
  }
  return column.map((a) => Math.sqrt(dot(a, a)));
}

describe("Muon", () => {
  it.each([
    [6, 10],
    [10, 6],
    [8, 8],
  ])(
    "updates a %i×%i matrix by one whose singular values are all near 0.2·√max(rows, columns)",
    (rows, columns) => {
      const { results } = update({ w: [rows, columns] }, { w: 1 });
      const step = toNumbers(results["w"]!).map(
        (x) => x / (0.2 * Math.sqrt(Math.max(rows, columns))),
      );
      const short = Math.min(rows, columns);
      const flat =
        rows >= columns
          ? step
          : Array.from(
              { length: rows * columns },
              (_, i) => step[(i % rows) * columns + Math.floor(i / rows)]!,
            );
      const singular = singularValues(flat, Math.max(rows, columns), short);
      // The published coefficients leave them between about 0.7 and 1.2.
      expect(Math.min(...singular)).toBeGreaterThan(0.6);
      expect(Math.max(...singular)).toBeLessThan(1.3);
    },
  );

  it("orthogonalizes stacked matrices separately", () => {
    const together = update({ w: [12, 5] }, { w: 3 });
    const g = toNumbers(together.drawn["g.w"]!);
    for (let part = 0; part < 3; part++) {
      const own = g.slice(part * 20, (part + 1) * 20);
      const w = parameter("w", [4, 5]);
      const gradient = input("g", [4, 5]);
      const optimizer = muon({
        learningRate: 1,
        momentum: 0.9,
        rest: adamW({ learningRate: 1 }),
        matricesIn: () => 1,
      });
      const [next] = optimizer.update(
        { w: gradient },
        { "momentum.w": input("m", [4, 5]) },
        { w },
        input("step", []),
      );
      const alone = evaluate(graphOf(next), {
        w: zeros("float32", [4, 5]),
        m: zeros("float32", [4, 5]),
        g: ndarray("float32", [4, 5], own),
      });
      const expected = toNumbers(alone["w"]!);
      const got = toNumbers(together.results["w"]!).slice(part * 20, (part + 1) * 20);
      for (const [i, value] of got.entries()) expect(value).toBeCloseTo(expected[i]!, 6);
    }
  });

  it("leaves all other weights to the other optimizer", () => {
    const { results, drawn, state } = update({ w: [4, 4], bias: [7] }, { w: 1 });
    expect(Object.keys(state).sort()).toEqual(["m.bias", "momentum.w", "v.bias"]);
    // The first step of Adam has length 1 in each direction.
    const signs = toNumbers(drawn["g.bias"]!).map((x) => -Math.sign(x));
    const steps = toNumbers(results["bias"]!);
    for (const [i, value] of steps.entries()) expect(value).toBeCloseTo(signs[i]!, 5);
  });
});
