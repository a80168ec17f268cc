import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { rateAt } from "../../src/training/optimizers.ts";

const anyDecay = fc.oneof(
  fc.constant({ kind: "none" } as const),
  fc.record({
    kind: fc.constantFrom("linear", "cosine"),
    over: fc.double({ min: 0.01, max: 1, noNaN: true }),
    to: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
);

describe("the learning rate", () => {
  it("rises in equal steps, stays constant, and falls to its final value", () => {
    const schedule = { rate: 2, warmUp: 4, decay: { kind: "linear", over: 0.5, to: 0.1 } } as const;
    const rates = Array.from({ length: 20 }, (_, i) => rateAt(schedule, i + 1, i / 20));
    expect(rates.slice(0, 5)).toEqual([0.5, 1, 1.5, 2, 2]);
    expect(rates[10]).toBe(2);
    expect(rates[15]).toBeCloseTo(2 * 0.55, 12);
    expect(rateAt(schedule, 21, 1)).toBeCloseTo(0.2, 12);
  });

  it("stays between 0 and the highest rate, and never rises after the warm-up", () => {
    const property = fc.property(anyDecay, fc.nat(50), (decay, warmUp) => {
      const schedule = { rate: 3, warmUp, decay };
      const rates = Array.from({ length: 101 }, (_, i) => rateAt(schedule, i + 1, i / 100));
      const falling = rates
        .slice(warmUp)
        .every((rate, i, rest) => i === 0 || rate <= rest[i - 1]! + 1e-12);
      return falling && rates.every((rate) => rate >= 0 && rate <= 3);
    });
    expect(() => fc.assert(property)).not.toThrow();
  });
});
