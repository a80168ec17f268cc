import { describe, expect, it } from "vitest";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { compare } from "../../src/verify/compare.ts";

const floats = (...values: number[]) => ndarray("float32", [values.length], values);
const integers = (...values: bigint[]) =>
  ndarray("int64", [values.length], BigInt64Array.from(values));

describe("compare", () => {
  it.each<[string, NdArray, NdArray, object, object]>([
    ["equal floats", floats(1, 2), floats(1, 2), { atol: 0 }, { maxError: 0, limit: 0, ok: true }],
    ["floats within", floats(1, 2.5), floats(1, 2), { atol: 0.5 }, { maxError: 0.5, ok: true }],
    ["floats beyond", floats(1, 2.5), floats(1, 2), { atol: 0.49 }, { maxError: 0.5, ok: false }],
    [
      "a share of each",
      floats(5, 110),
      floats(4, 100),
      { rtol: 0.25 },
      { maxError: 0.25, ok: true },
    ],
    ["a share of 0", floats(1), floats(0), { rtol: 0.5 }, { maxError: Infinity, ok: false }],
    ["equal zeros by share", floats(0), floats(0), { rtol: 0 }, { maxError: 0, ok: true }],
    ["nothing", floats(), floats(), { atol: 0 }, { maxError: 0, ok: true }],
    ["infinities that agree", floats(Infinity), floats(Infinity), { atol: 0 }, { ok: true }],
    ["one infinity", floats(1), floats(Infinity), { atol: 1e9 }, { maxError: Infinity, ok: false }],
    ["opposite infinities", floats(-Infinity), floats(Infinity), { atol: 1 }, { ok: false }],
    ["integers", integers(1n), integers(2n), { atol: 5 }, { maxError: 1, limit: 0, ok: false }],
    [
      "integers beyond 2^53",
      integers(2n ** 53n + 1n),
      integers(2n ** 53n),
      { atol: 5 },
      { maxError: 1, ok: false },
    ],
    ["widths of integer", ndarray("int32", [1], [7]), integers(7n), {}, { maxError: 0, ok: true }],
    ["widths of float", ndarray("float64", [1], [0.5]), floats(0.5), { atol: 0 }, { ok: true }],
    ["float16", ndarray("float16", [1], [1.5]), floats(1.5), { atol: 0 }, { ok: true }],
    ["floats for integers", floats(7), integers(7n), { atol: 1 }, { ok: false, maxError: NaN }],
    ["integers for floats", integers(7n), floats(7), { atol: 1 }, { ok: false, maxError: NaN }],
  ])("compares %s", (_, got, want, tolerance, verdict) => {
    expect(compare(got, want, tolerance as { atol: number })).toMatchObject(verdict);
  });

  it.each([
    [floats(NaN, 1), floats(0, 1)],
    [floats(0, 1), floats(0, NaN)],
    [floats(NaN), floats(NaN)],
    [floats(1, NaN, 1e9), floats(1, 2, 3)],
  ])("fails a NaN on either side", (got, want) => {
    for (const tolerance of [{ atol: 1e30 }, { rtol: 1e30 }]) {
      const verdict = compare(got, want, tolerance);
      expect(verdict).toMatchObject({ ok: false, maxError: NaN });
      expect(verdict.reason).toContain("NaN");
    }
  });

  it("fails different shapes of the same size", () => {
    const verdict = compare(ndarray("float32", [2, 1], [1, 2]), floats(1, 2), { atol: 1 });
    expect(verdict).toMatchObject({ ok: false, reason: "shape is [2, 1], but [2] was recorded" });
  });
});
