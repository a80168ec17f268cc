import { describe, expect, it } from "vitest";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { attention, constant, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { quantizeLinears } from "../../src/engine/passes/quantize.ts";
import { createParams, declaredTensors } from "../../src/nn/params.ts";
import { mixTokensBy, type MixedTokens, mixedTokens } from "../../src/nn/token-mixing.ts";
import { selfAttention } from "../../src/nn/attention.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { randomArray } from "../support/arrays.ts";
import { finiteDifferences, runWith } from "../support/finite-differences.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";

const [width, heads] = [4, 2];

/** Queries, keys and values of some tokens, and their numbers. */
function three(tokens: number, rows = 2) {
  const names = ["q", "k", "v"] as const;
  const parts = names.map((name) => input(name, [batch, tokens, width]));
  const values = Object.fromEntries(
    names.map((name, i) => [name, randomArray(i + 3, "float32", [rows, tokens, width], -1, 1)]),
  );
  return { parts: parts as [(typeof parts)[0], (typeof parts)[0], (typeof parts)[0]], values };
}

/** The largest distance of two numbers at the same place; infinite if there are not as many. */
function apart(got: readonly number[], want: readonly number[]): number {
  if (got.length !== want.length) return Infinity;
  return Math.max(...got.map((value, i) => Math.abs(value - want[i]!)));
}

/** The bias of full attention that allows what windows of a block do, from the places of the patches before any shift. */
function allowed(tokens: MixedTokens, all: number, size: number): NdArray<"float32"> {
  const { grid, before, block } = tokens;
  const places = grid.reduce<number[][]>(
    (rows, length) => rows.flatMap((row) => Array.from({ length }, (_, at) => [...row, at])),
    [[]],
  );
  const windowOf = (place: readonly number[]) =>
    place
      .map((at, i) => {
        const side = Math.min(size, grid[i]!);
        const shift = block % 2 === 1 && side < grid[i]! ? Math.floor(side / 2) : 0;
        return Math.floor((at - shift) / side);
      })
      .join();
  const names = Array.from({ length: all }, (_, i) => {
    const place = places[i - before];
    return place && windowOf(place);
  });
  const data = names.flatMap((query) =>
    names.map((key) => (query === undefined || key === undefined || query === key ? 0 : -10_000)),
  );
  return { dtype: "float32", shape: [1, 1, all, all], data: Float32Array.from(data) };
}

describe("attention in windows", () => {
  it.each([
    { grid: [4, 6], size: 2, block: 0, before: 0, after: 0 },
    { grid: [4, 6], size: 2, block: 1, before: 0, after: 0 },
    { grid: [6, 3], size: 3, block: 1, before: 2, after: 1 },
    { grid: [2, 4, 4], size: 4, block: 1, before: 0, after: 2 },
    { grid: [2, 4, 4], size: 2, block: 3, before: 1, after: 0 },
  ])("is full attention without what other windows hold: %o", (given) => {
    const { grid, size, block, before, after } = given;
    const all = before + grid.reduce((a, b) => a * b) + after;
    const { parts, values } = three(all);
    const tokens = { mixing: { kind: "window", size }, grid, before, block } as const;
    const got = mixTokensBy(createParams(), parts, { heads }, tokens);
    const want = attention(...parts, { heads, bias: constant(allowed(tokens, all, size)) });
    expect(apart(numbersOf(got, values), numbersOf(want, values))).toBeLessThan(1e-9);
  });

  it("ignores padding among the other tokens", () => {
    const { parts, values } = three(4 * 4 + 3);
    const tokens = {
      mixing: { kind: "window", size: 2 },
      grid: [4, 4],
      before: 0,
      block: 1,
    } as const;
    const mask = { dtype: "float32", shape: [2, 1, 1, 19], data: new Float32Array(38) } as const;
    mask.data.set([-10_000, -10_000], 17);
    const bias = input("bias", [batch, 1, 1, 19]);
    const got = numbersOf(mixTokensBy(createParams(), parts, { heads, bias }, tokens), {
      ...values,
      bias: mask,
    });
    const of = (count: number, rows: number) => {
      const few = three(count, rows);
      const cut = Object.fromEntries(
        Object.entries(values).map(([name, { data }]) => {
          const kept = (data as Float32Array).slice(0, count * width);
          return [name, { dtype: "float32", shape: [1, count, width], data: kept } as const];
        }),
      );
      return numbersOf(mixTokensBy(createParams(), few.parts, { heads }, tokens), cut);
    };
    expect(apart(got.slice(0, 17 * width), of(17, 1))).toBeLessThan(1e-9);
  });
});

/** The bias of full attention that allows what a tile does: the tiles whose distance to the middle of its window is small enough. */
function nearTiles(grid: readonly number[], all: number, given: Tiled): NdArray<"float32"> {
  const { before, size, window } = given;
  const place = (token: number) => {
    let rest = token - before;
    if (rest < 0 || rest >= grid.reduce((a, b) => a * b)) return undefined;
    const along: number[] = [];
    for (const length of grid.toReversed()) {
      along.unshift(rest % length);
      rest = Math.floor(rest / length);
    }
    return along;
  };
  const sees = (query: number, key: number) => {
    const [from, to] = [place(query), place(key)];
    if (!from || !to) return true;
    return grid.every((length, i) => {
      const side = Math.min(size, length);
      const tiles = length / side;
      if (tiles <= window) return true;
      const reach = (window - 1) / 2;
      // Near a border the middle of the window is not the query's own tile.
      const middle = Math.max(reach, Math.min(tiles - 1 - reach, Math.floor(from[i]! / side)));
      return Math.abs(Math.floor(to[i]! / side) - middle) <= reach;
    });
  };
  const data = new Float32Array(all * all);
  for (let i = 0; i < data.length; i++) {
    data[i] = sees(Math.floor(i / all), i % all) ? 0 : -10_000;
  }
  return { dtype: "float32", shape: [1, 1, all, all], data };
}

interface Tiled {
  readonly before: number;
  readonly size: number;
  readonly window: number;
}

describe("attention to tiles around each tile", () => {
  it.each([
    { grid: [5, 6], size: 1, window: 3, before: 0, after: 0 },
    { grid: [8, 10], size: 2, window: 3, before: 2, after: 1 },
    { grid: [12], size: 2, window: 5, before: 0, after: 0 },
    { grid: [4, 8, 6], size: 2, window: 3, before: 0, after: 0 },
    { grid: [5, 2, 4], size: 1, window: 3, before: 1, after: 0 },
    { grid: [3, 8, 8], size: 4, window: 3, before: 0, after: 2 },
    { grid: [4, 7], size: 1, window: 5, before: 0, after: 0 },
  ])("is full attention without what is outside of the window: %o", (given) => {
    const { grid, size, window, before, after } = given;
    const all = before + grid.reduce((a, b) => a * b) + after;
    const { parts, values } = three(all, 1);
    const tokens = { mixing: { kind: "tile", size, window }, grid, before, block: 1 } as const;
    const got = mixTokensBy(createParams(), parts, { heads }, tokens);
    const want = attention(...parts, { heads, bias: constant(nearTiles(grid, all, given)) });
    expect(apart(numbersOf(got, values), numbersOf(want, values))).toBeLessThan(1e-9);
  });

  it("ignores padding among the other tokens", () => {
    const grid = [5, 5];
    const tokens = {
      mixing: { kind: "tile", size: 1, window: 3 },
      grid,
      before: 1,
      block: 0,
    } as const;
    const all = 28;
    const { parts, values } = three(all);
    const mask = {
      dtype: "float32",
      shape: [2, 1, 1, all],
      data: new Float32Array(2 * all),
    } as const;
    mask.data.set([-10_000], 0);
    mask.data.set([-10_000], 2 * all - 1);
    const bias = input("bias", [batch, 1, 1, all]);
    const got = mixTokensBy(createParams(), parts, { heads, bias }, tokens);
    const near = constant(nearTiles(grid, all, { before: 1, size: 1, window: 3 }));
    const want = attention(...parts, { heads, bias: bias.add(near) });
    const given = { ...values, bias: mask };
    expect(apart(numbersOf(got, given), numbersOf(want, given))).toBeLessThan(1e-9);
  });
});

describe("linear attention", () => {
  it("weighs each key by relu(q)·relu(k)", () => {
    const { parts, values } = three(5, 1);
    const tokens = { mixing: { kind: "linear" }, grid: [5], before: 0, block: 0 } as const;
    const got = numbersOf(mixTokensBy(createParams(), parts, { heads }, tokens), values);
    const at = (name: string, token: number, channel: number) =>
      Number(values[name]!.data[token * width + channel]);
    const want = [0, 1, 2, 3, 4].flatMap((query) =>
      [0, 2].flatMap((start) => {
        const weights = Array.from({ length: 5 }, (_, key) =>
          [0, 1].reduce(
            (sum, i) =>
              sum + Math.max(0, at("q", query, start + i)) * Math.max(0, at("k", key, start + i)),
            0,
          ),
        );
        const total = weights.reduce((a, b) => a + b) + 1e-15;
        return [0, 1].map(
          (i) => weights.reduce((sum, w, key) => sum + w * at("v", key, start + i), 0) / total,
        );
      }),
    );
    expect(apart(got, want)).toBeLessThan(1e-9);
  });
});

describe("attention to joined patches", () => {
  it("reads the normalized mean of their keys and values, as it is initialized", () => {
    const { parts, values } = three(4 * 2 + 1);
    const tokens = {
      mixing: { kind: "compressed", factor: 2 },
      grid: [4, 2],
      before: 1,
      block: 0,
    } as const;
    const p = createParams();
    const got = mixTokensBy(p, parts, { heads }, tokens);
    expect([...p.declared.keys()]).toEqual(["sr.weight", "sr.bias", "norm.weight", "norm.bias"]);
    const initial = Object.fromEntries(
      [...p.declared].map(([name, { tensor, init }]) => {
        const shape = tensor.shape as readonly number[];
        const value = init.kind === "constant" ? init.value : NaN;
        const data = new Float32Array(shape.reduce((a, b) => a * b)).fill(value);
        return [name, { dtype: "float32", shape, data } as const];
      }),
    );
    const [q, k, v] = parts;
    const fewer = (x: typeof k) => {
      const cells = x.slice(1, 1).reshape([batch, 2, 2, 2, width]);
      const joined = cells.mean([2, 3]).layerNorm({ epsilon: 1e-5 });
      return [joined, x.slice(1, 0, 1)] as const;
    };
    const order = (x: typeof k) => {
      const [joined, first] = fewer(x);
      return joined
        .pad([
          [0, 0],
          [0, 1],
          [0, 0],
        ])
        .add(
          first.pad([
            [0, 0],
            [2, 0],
            [0, 0],
          ]),
        );
    };
    const want = attention(q, order(k), order(v), { heads });
    expect(apart(numbersOf(got, { ...values, ...initial }), numbersOf(want, values))).toBeLessThan(
      1e-9,
    );
  });
});

describe("every kind", () => {
  const kinds = [
    { kind: "linear" },
    { kind: "window", size: 2 },
    { kind: "tile", size: 1, window: 3 },
    { kind: "compressed", factor: 2 },
  ] as const;

  it.each(kinds)("has gradients that agree with finite differences: %o", (mixing) => {
    const params = createParams();
    const x = input("x", [1, 18, width], "float64");
    const tokens = mixedTokens(mixing, { grid: [4, 4], before: 1, block: 1 });
    const y = selfAttention(params, x.cast("float32"), heads, { tokens });
    const loss = y.mul(y.add(0.3)).sum();
    const values: Record<string, NdArray> = {
      x: randomArray(2, "float64", [1, 18, width], -1, 1),
      ...randomValues(params),
    };
    const gradients = gradient(loss, [x]);
    const got = runWith(graphOf({ dx: gradients[0]! }), values)["dx"]!;
    const want = finiteDifferences(loss, x, values);
    expect(apart(toNumbers(got), want)).toBeLessThan(1e-6);
    // Every weight has a part in it.
    const ofWeights = gradient(loss, declaredTensors(params));
    for (const each of ofWeights) {
      expect(numbersOf(each.abs().sum(), values)[0]).toBeGreaterThan(0);
    }
  });

  it.each(kinds)("has linear layers that int8 takes: %o", (mixing) => {
    const params = createParams();
    const tokens = mixedTokens(mixing, { grid: [4, 4], before: 0, block: 0 });
    const x = input("x", [batch, 16, 64]);
    const between = selfAttention(params.at("a"), x, 2, { tokens });
    const y = selfAttention(
      params.at("b"),
      selfAttention(params.at("c"), between, 2, { tokens }),
      2,
      {
        tokens,
      },
    );
    const { graph } = quantizeLinears(graphOf({ y }), arrayWeights(randomValues(params)));
    expect(graph.nodes.filter(({ op }) => op === "quantizedLinear").length).toBeGreaterThan(2);
  });

  it("full attention is left as it is", () => {
    expect(mixedTokens(undefined, { grid: [2], before: 0, block: 0 })).toBeUndefined();
    expect(mixedTokens({ kind: "full" }, { grid: [2], before: 0, block: 0 })).toBeUndefined();
  });
});
