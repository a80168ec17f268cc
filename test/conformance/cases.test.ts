import { describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import type { OpName } from "../../src/engine/graph/ops.ts";
import { allCases, opCases } from "./cases/index.ts";
import { difference } from "./compare.ts";
import { opsOf } from "./suite.ts";

describe("conformance cases", () => {
  it("have different names", () => {
    const names = allCases.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it.each(Object.keys(opCases) as OpName[])("of %s contain the op", (op) => {
    expect(opCases[op].length).toBeGreaterThan(0);
    const without = opCases[op].filter((test) => !opsOf(test).has(op));
    expect(without.map(({ name }) => name)).toEqual([]);
  });
});

describe("difference", () => {
  const close = { exact: false, through: "bool", scale: 0 } as const;
  const floats = (...values: number[]) => ndarray("float32", [values.length], values);

  it("accepts rounding relative to the largest magnitude", () => {
    expect(difference(floats(1000, 0.009), floats(1000, 0), close)).toBeUndefined();
    expect(difference(floats(1000, 0.011), floats(1000, 0), close)).toContain("element 1");
  });

  it("takes coarser intermediate dtypes and the scale of sums into account", () => {
    const [a, b] = [floats(1.001), floats(1)];
    expect(difference(a, b, close)).toContain("1.001");
    expect(difference(a, b, { ...close, through: "float16" })).toBeUndefined();
    expect(difference(floats(1e-6), floats(0), close)).toBeDefined();
    expect(difference(floats(1e-6), floats(0), { ...close, scale: 1 })).toBeUndefined();
  });

  it("accepts no difference for moves and integers", () => {
    const exact = { ...close, exact: true };
    expect(difference(floats(1), floats(1), exact)).toBeUndefined();
    expect(difference(floats(1 + 2 ** -23), floats(1), exact)).toBeDefined();
    const [two, three] = [2, 3].map((value) => ndarray("int64", [1], [value]));
    expect(difference(two!, three!, { ...close, through: "float16", scale: 1e6 })).toBeDefined();
  });

  it("distinguishes NaN, infinities and numbers", () => {
    const wanted = floats(NaN, Infinity, -Infinity);
    expect(difference(floats(NaN, Infinity, -Infinity), wanted, close)).toBeUndefined();
    expect(difference(floats(0, Infinity, -Infinity), wanted, close)).toContain("element 0");
    expect(difference(floats(NaN, -Infinity, -Infinity), wanted, close)).toContain("element 1");
    expect(difference(floats(NaN, Infinity, 3e38), wanted, close)).toContain("element 2");
  });

  it("compares dtypes and shapes", () => {
    expect(difference(ndarray("float64", [1], [1]), floats(1), close)).toContain("float64");
    expect(difference(ndarray("float32", [1, 1], [1]), floats(1), close)).toContain("[1, 1]");
  });
});
