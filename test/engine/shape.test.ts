import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  batch,
  batchTimes,
  broadcast,
  type Dim,
  formatShape,
  isStatic,
  matchBatch,
  normalizeAxis,
  product,
  quotient,
  resolve,
  sameShape,
  sum,
} from "../../src/engine/graph/shape.ts";

const B = 7;
const sizeIn = (dim: Dim | undefined): number | undefined =>
  dim === undefined ? undefined : resolve([dim], B)[0];
const dims = fc.oneof(fc.nat(12), fc.integer({ min: 1, max: 12 }).map(batchTimes));

describe("the batch dimension", () => {
  it("is the same object for equal factors", () => {
    expect(batchTimes(2)).toBe(batchTimes(2));
    expect(batchTimes(1)).toBe(batch);
    expect(sameShape([batchTimes(64), 3], [batchTimes(64), 3])).toBe(true);
    expect(sameShape([batchTimes(64)], [batch])).toBe(false);
  });

  it.each([0, -1, 1.5, NaN])("has no factor %d", (factor) => {
    expect(() => batchTimes(factor)).toThrow(`positive whole factor, not ${factor}`);
  });

  it("prints as a multiple of B", () => {
    expect(formatShape([batch, batchTimes(64), 3])).toBe("[B, 64B, 3]");
    expect(formatShape([])).toBe("[]");
  });

  it("makes a shape symbolic", () => {
    expect(isStatic([1, 2])).toBe(true);
    expect(isStatic([1, batch])).toBe(false);
  });
});

describe("arithmetic of dimensions holds for the sizes of a run", () => {
  it("product", () => {
    fc.assert(
      fc.property(fc.array(dims, { maxLength: 4 }), (shape) => {
        const expected = resolve(shape, B).reduce((a, b) => a * b, 1);
        const batches = shape.filter((dim) => typeof dim !== "number").length;
        const unknown = batches > 1 && expected !== 0;
        expect(sizeIn(product(shape))).toBe(unknown ? undefined : expected);
      }),
    );
  });

  it("quotient undoes a product", () => {
    fc.assert(
      fc.property(dims, dims, (a, b) => {
        const whole = product([a, b]);
        if (whole === undefined || whole === 0) return;
        expect(quotient(whole, b)).toBe(a);
        expect(quotient(whole, a)).toBe(b);
      }),
    );
  });

  it.each<[Dim, Dim]>([
    [7, 2],
    [7, 0],
    [7, batch],
    [batchTimes(3), 2],
    [batchTimes(3), batchTimes(2)],
  ])("quotient of %j and %j is undefined", (a, b) => {
    expect(quotient(a, b)).toBeUndefined();
  });

  it("sum", () => {
    fc.assert(
      fc.property(dims, dims, (a, b) => {
        const found = sum(a, b);
        const mixed = typeof a !== typeof b && a !== 0 && b !== 0;
        expect(sizeIn(found)).toBe(mixed ? undefined : sizeIn(a)! + sizeIn(b)!);
      }),
    );
  });
});

describe("broadcast", () => {
  it.each<[Dim[], Dim[], Dim[] | undefined]>([
    [[], [], []],
    [[2, 3], [], [2, 3]],
    [
      [2, 1, 3],
      [4, 1],
      [2, 4, 3],
    ],
    [
      [batch, 3],
      [1, 1],
      [batch, 3],
    ],
    [[1], [batch], [batch]],
    [[0], [1], [0]],
    [[0], [2], undefined],
    [[2, 3], [2], undefined],
    [[batch], [2], undefined],
    [[batch], [batchTimes(2)], undefined],
  ])("of %j and %j is %j", (a, b, expected) => {
    expect(broadcast(a, b)).toEqual(expected);
    expect(broadcast(b, a)).toEqual(expected);
  });
});

describe("normalizeAxis", () => {
  it("counts negative axes from the end", () => {
    expect([-3, -1, 0, 2].map((axis) => normalizeAxis(axis, 3))).toEqual([0, 2, 0, 2]);
  });
  it.each([3, -4, 0.5, NaN])("refuses %d of 3", (axis) => {
    expect(() => normalizeAxis(axis, 3)).toThrow(`axis ${axis} does not exist in 3 dimensions`);
  });
});

describe("matchBatch", () => {
  it("finds the size that resolve was given", () => {
    fc.assert(
      fc.property(fc.array(dims, { maxLength: 4 }), fc.nat(9), (shape, batchSize) => {
        const match = matchBatch(shape, resolve(shape, batchSize));
        expect(match).toEqual(isStatic(shape) ? {} : { batchSize });
      }),
    );
  });
  it.each<[Dim[], number[]]>([
    [[2], [3]],
    [[2], [2, 1]],
    [[batchTimes(2)], [3]],
    [
      [batch, batch],
      [2, 3],
    ],
  ])("refuses %j for %j", (declared, actual) => {
    const expected = `expected ${formatShape(declared)}, got ${formatShape(actual)}`;
    expect(matchBatch(declared, actual)).toEqual({ mismatch: expected });
  });
  it("does not change a static shape, and resolve requires the size otherwise", () => {
    expect(resolve([2, 3], undefined)).toEqual([2, 3]);
    expect(() => resolve([batch, 3], undefined)).toThrow("[B, 3] depends on the batch size");
  });
});
