import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import {
  gridPositions,
  rotaryTable,
  rotaryTableOf,
  rotate,
  sinCosTable,
} from "../../src/nn/positions.ts";
import { randomArray } from "../support/arrays.ts";

describe("sine-cosine positions", () => {
  const row = ({ data }: NdArray<"float32">, at: number, channels: number) => [
    ...data.subarray(at * channels, (at + 1) * channels),
  ];

  it("of one axis are sines, then cosines", () => {
    const table = sinCosTable([[0, 2]], 4);
    expect(row(table, 0, 4)).toEqual([0, 0, 1, 1]);
    expect(row(table, 1, 4)).toEqual(
      [Math.sin(2), Math.sin(0.02), Math.cos(2), Math.cos(0.02)].map(Math.fround),
    );
  });

  it("of an image have the column in the first half of the channels, the row in the second", () => {
    const table = sinCosTable(gridPositions([3, 5]), 8);
    expect(table.shape).toEqual([15, 8]);
    const axis = sinCosTable(gridPositions([5]), 4);
    fc.assert(
      fc.property(fc.nat(2), fc.nat(4), (y, x) => {
        expect(row(table, y * 5 + x, 8)).toEqual([...row(axis, x, 4), ...row(axis, y, 4)]);
      }),
      { seed: 1 },
    );
  });

  it("of a clip have the column first, then the row, then the frame", () => {
    const table = sinCosTable(gridPositions([2, 3, 4]), 12);
    expect(table.shape).toEqual([24, 12]);
    const axis = sinCosTable(gridPositions([4]), 4);
    for (const [frame, y, x] of [
      [0, 0, 0],
      [0, 2, 3],
      [1, 1, 2],
    ] as const) {
      expect(row(table, (frame * 3 + y) * 4 + x, 12)).toEqual(
        [x, y, frame].flatMap((at) => row(axis, at, 4)),
      );
    }
  });

  it("fail unless the axes divide the channels", () => {
    expect(() => sinCosTable([[0]], 3)).toThrow("over 1 axis need a multiple of 2 channels, not 3");
    expect(() => sinCosTable([[0], [0]], 6)).toThrow("need a multiple of 4 channels, not 6");
    expect(() => sinCosTable([[0], [0], [0]], 8)).toThrow("need a multiple of 6 channels, not 8");
  });
});

describe("rotary positions", () => {
  /** Vectors [tokens, size] turned by the positions of a grid. */
  function turned(
    vectors: NdArray,
    grid: readonly number[],
    options: { theta?: number; extra?: number } = {},
  ): number[][] {
    const [tokens, size] = vectors.shape as [number, number];
    const x = input("x", [1, tokens, 1, size]);
    const graph = graphOf({ y: rotate(x, rotaryTable(grid, size, options)) });
    const y = toNumbers(
      evaluateFloat64(graph, { x: { ...vectors, shape: [1, tokens, 1, size] } })["y"]!,
    );
    return Array.from({ length: tokens }, (_, i) => y.slice(i * size, (i + 1) * size));
  }
  const dot = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, x, i) => sum + x * b[i]!, 0);

  const grids = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });
  const sizes = fc.constantFrom(6, 8, 12);
  const volume = (grid: readonly number[]) => grid.reduce((product, n) => product * n, 1);

  it("preserve the length of every vector", () => {
    fc.assert(
      fc.property(grids, sizes, fc.nat(), (grid, size, seed) => {
        const vectors = randomArray(seed, "float32", [volume(grid), size]);
        const before = toNumbers(vectors);
        for (const [i, after] of turned(vectors, grid).entries()) {
          const own = before.slice(i * size, (i + 1) * size);
          expect(dot(after, after)).toBeCloseTo(dot(own, own), 5);
        }
      }),
      { seed: 1, numRuns: 30 },
    );
  });

  it("make dot products depend on the distance between positions alone", () => {
    fc.assert(
      fc.property(grids, sizes, fc.nat(), (grid, size, seed) => {
        const count = volume(grid);
        const everywhere = (vector: number[]) =>
          turned(
            ndarray("float32", [count, size], Array.from({ length: count }, () => vector).flat()),
            grid,
          );
        const [a, b] = [seed, seed + 1].map((each) =>
          toNumbers(randomArray(each, "float32", [size])),
        );
        const [q, k] = [everywhere(a!), everywhere(b!)];
        const place = (token: number) => {
          let rest = token;
          return grid.toReversed().map((n) => {
            const at = rest % n;
            rest = Math.floor(rest / n);
            return at;
          });
        };
        const products = new Map<string, number>();
        for (let i = 0; i < count; i++) {
          for (let j = 0; j < count; j++) {
            const way = place(j)
              .map((to, axis) => to - place(i)[axis]!)
              .join();
            const product = dot(q[i]!, k[j]!);
            expect(product).toBeCloseTo(products.get(way) ?? product, 4);
            products.set(way, product);
          }
        }
      }),
      { seed: 1, numRuns: 20 },
    );
  });

  it("of halves turn channel i with channel i + size/2, as neighbours turn 2i with 2i + 1", () => {
    const positions = [
      [0, 0],
      [3, 1],
      [2, 7],
    ];
    const [tokens, size] = [positions.length, 12];
    const vectors = randomArray(5, "float32", [1, tokens, 1, size]);
    const x = input("x", [1, tokens, 1, size]);
    const paired = (t: Tensor) => t.rearrange("b n h (two i) -> b n h (i two)", { two: 2 });
    const options = { theta: 100 };
    const neighbours = rotaryTableOf(positions, [4, 2], options);
    const halves = rotaryTableOf(positions, [4, 2], { ...options, pairing: "halves" });
    const { got, want } = evaluateFloat64(
      graphOf({ got: paired(rotate(x, halves)), want: rotate(paired(x), neighbours) }),
      { x: vectors },
    );
    expect(toNumbers(got!)).toEqual(toNumbers(want!));
    expect(toNumbers(got!)).not.toEqual(toNumbers(vectors));
  });

  it("rotate neighbouring channels by position · theta^(−i/pairs)", () => {
    const ones = ndarray("float32", [3, 4], [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
    const last = turned(ones, [3], { theta: 100 })[2]!;
    for (const [i, x] of [Math.cos(2), Math.sin(2), Math.cos(0.2), Math.sin(0.2)].entries()) {
      expect(last[i]).toBeCloseTo(x, 6);
    }
  });

  it("divide the channels among the axes, with the remainder for the first", () => {
    // 8 channels, 4 pairs, 3 axes: 2 pairs for the first, 1 for the others.
    const ones = ndarray(
      "float32",
      [8, 8],
      Array.from({ length: 64 }, (_, i) => 1 - (i % 2)),
    );
    const moved = (token: number) =>
      turned(ones, [2, 2, 2])[token]!.map((x, i) => (Math.abs(x - (i % 2 ? 0 : 1)) > 1e-6 ? 1 : 0));
    expect(moved(4)).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
    expect(moved(2)).toEqual([0, 0, 0, 0, 1, 1, 0, 0]);
    expect(moved(1)).toEqual([0, 0, 0, 0, 0, 0, 1, 1]);
  });

  it("do not rotate additional tokens", () => {
    const vectors = randomArray(1, "float32", [6, 4]);
    const after = turned(vectors, [2, 2], { extra: 2 });
    expect(after.slice(4).flat()).toEqual(toNumbers(vectors).slice(16));
  });

  it("fail without a pair of channels for each axis", () => {
    expect(() => rotaryTable([2, 2, 2], 4)).toThrow("at least 6, not 4");
    expect(() => rotaryTable([2], 5)).toThrow("an even number of channels, at least 2, not 5");
  });
});
