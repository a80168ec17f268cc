import { expect, test } from "vitest";
import { exponentOf } from "../../bench/attention.ts";

test("the exponent of a power is found", () => {
  const points = [1, 10, 50, 700].map((x) => [x, 3 * x ** 1.5] as const);
  expect(exponentOf(points)).toBeCloseTo(1.5, 12);
  // Noise that is the same in both directions at the ends of the range tilts nothing.
  expect(
    exponentOf([
      [1, 2],
      [10, 10],
      [100, 200],
    ]),
  ).toBeCloseTo(1, 12);
});
