import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import {
  averagePool,
  maxPool,
  pixelShuffle,
  pixelUnshuffle,
  type PoolOptions,
} from "../../src/engine/graph/pool.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

const image = (shape: readonly number[]) =>
  ndarray(
    "float32",
    shape,
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(7.3 * i)),
  );

const apply = (x: NdArray, f: (x: Tensor) => Tensor) =>
  evaluate(graphOf({ y: f(input("x", x.shape)) }), { x })["y"]!;

/** Pooling by its definition, of one image with one channel. */
function pooled(
  x: NdArray,
  { kernel, stride, padding }: { kernel: number; stride: number; padding: number },
  combine: (window: number[]) => number,
  fill: number,
): number[] {
  const [height, width] = x.shape.slice(2) as [number, number];
  const at = (row: number, column: number) =>
    row < 0 || column < 0 || row >= height || column >= width
      ? fill
      : (x.data[row * width + column] as number);
  const starts = (size: number) => {
    const count = Math.floor((size + 2 * padding - kernel) / stride) + 1;
    return Array.from({ length: count }, (_, i) => i * stride - padding);
  };
  const steps = Array.from({ length: kernel }, (_, i) => i);
  return starts(height).flatMap((top) =>
    starts(width).map((left) =>
      combine(steps.flatMap((i) => steps.map((j) => at(top + i, left + j)))),
    ),
  );
}

describe("pools", () => {
  it("equal their definition for any kernel, stride and padding", () => {
    const sizes = fc.record({
      kernel: fc.integer({ min: 1, max: 3 }),
      stride: fc.integer({ min: 1, max: 3 }),
      padding: fc.integer({ min: 0, max: 1 }),
      height: fc.integer({ min: 3, max: 7 }),
      width: fc.integer({ min: 3, max: 7 }),
    });
    fc.assert(
      fc.property(sizes, ({ height, width, ...options }) => {
        const x = image([1, 1, height, width]);
        const mean = (window: number[]) => window.reduce((a, b) => a + b) / window.length;
        const means = toNumbers(apply(x, (t) => averagePool(t, options)));
        const expected = pooled(x, options, mean, 0);
        expect(means).toHaveLength(expected.length);
        for (const [i, value] of means.entries()) expect(value).toBeCloseTo(expected[i]!, 6);
        const largest = (window: number[]) => Math.max(...window);
        expect(toNumbers(apply(x, (t) => maxPool(t, options)))).toEqual(
          pooled(x, options, largest, Number.NEGATIVE_INFINITY),
        );
      }),
      { seed: 1 },
    );
  });

  it("run in one dimension and in three, and on the CPU as in the reference", async () => {
    const backend = nodeBackend("cpu");
    for (const shape of [
      [2, 3, 8],
      [2, 3, 4, 6],
      [1, 2, 4, 2, 6],
    ]) {
      const x = input("x", [batch, ...shape.slice(1)]);
      const options: PoolOptions = { kernel: 2, padding: 1, stride: 2 };
      const graph = graphOf({ max: maxPool(x, options), mean: averagePool(x, options) });
      const program = await backend.compile(graph);
      const inputs = { x: image(shape) };
      const [got, want] = [await program.run(inputs), evaluate(graph, inputs)];
      for (const name of ["max", "mean"]) {
        expect(got[name]!.shape).toEqual(want[name]!.shape);
        for (const [i, value] of toNumbers(got[name]!).entries()) {
          expect(value).toBeCloseTo(toNumbers(want[name]!)[i]!, 6);
        }
      }
      await program.dispose();
    }
  });

  it("send the gradient of a maximum to the first of equal pixels", () => {
    const x = input("x", [1, 1, 2, 2]);
    const [dx] = gradient(maxPool(x, { kernel: 2 }).sum(), [x]) as [Tensor];
    const graph = graphOf({ dx });
    expect(
      toNumbers(evaluate(graph, { x: ndarray("float32", [1, 1, 2, 2], [1, 5, 5, 2]) })["dx"]!),
    ).toEqual([0, 1, 0, 0]);
  });

  it("name the window that does not fit", () => {
    const x = input("x", [1, 1, 2, 2]);
    expect(() => maxPool(x, { kernel: 3 })).toThrow(
      "pool: a window of 3 does not fit into axis 2 of [1, 1, 2, 2].",
    );
    expect(() => maxPool(x, { kernel: [1, 1, 1] })).toThrow("for each of its 2 spatial axes");
  });
});

describe("pixel shuffle", () => {
  it("moves channels to pixels in PyTorch's order, and back", () => {
    const x = image([2, 8, 3, 2]);
    const shuffled = apply(x, (t) => pixelShuffle(t, 2));
    expect(shuffled.shape).toEqual([2, 2, 6, 4]);
    // y[n, c, h·r + p, w·r + q] = x[n, c·r² + p·r + q, h, w]
    const [n, c, h, w, p, q] = [1, 1, 2, 1, 0, 1];
    const target = ((n * 2 + c) * 6 + h * 2 + p) * 4 + w * 2 + q;
    const source = ((n * 8 + c * 4 + p * 2 + q) * 3 + h) * 2 + w;
    expect(shuffled.data[target]).toBe(x.data[source]);
    expect(toNumbers(apply(shuffled, (t) => pixelUnshuffle(t, 2)))).toEqual(toNumbers(x));
  });
});
