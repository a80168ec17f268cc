import { describe, expect, it } from "vitest";
import { boxMuller } from "../../src/engine/random/primitives.ts";

/** The largest distance from the transform in float64, as a share of the radius, over `count`² pairs. */
function worst(count: number, u1Of: (i: number) => number): number {
  const out = new Float32Array(2);
  let error = 0;
  for (let i = 0; i < count; i++) {
    const u1 = Math.fround(u1Of(i));
    const radius = Math.sqrt(-2 * Math.log(u1));
    for (let j = 0; j < count; j++) {
      const u2 = Math.fround((j + 0.37) / count);
      boxMuller(out, 0, 1, u1, u2);
      const cos = Math.abs(out[0]! / radius - Math.cos(2 * Math.PI * u2));
      const sin = Math.abs(out[1]! / radius - Math.sin(2 * Math.PI * u2));
      error = Math.max(error, cos, sin);
    }
  }
  return error;
}

describe("boxMuller", () => {
  // float32 holds 2π with an error of 1.7e-7 and rounds an angle below it by up to 2.4e-7; the rest is 2^-24s.
  const bound = 1.7e-7 + 2.4e-7 + 3 * 2 ** -24;

  it("is as close to the exact transform as float32 angles allow", () => {
    expect(worst(500, (i) => (i + 0.61) / 500)).toBeLessThan(bound);
  });

  it("holds in the tail, where u1 goes down to 2^-32", () => {
    expect(worst(320, (i) => 2 ** (-(i + 1) / 10))).toBeLessThan(bound);
  });

  it("is exact on the axes", () => {
    const out = new Float32Array(4);
    const u1 = Math.fround(Math.exp(-0.5)); // radius 1
    boxMuller(out, 0, 1, u1, 0);
    boxMuller(out, 2, 3, 1, 0.3); // radius 0
    expect(out[0]).toBeCloseTo(1, 6);
    expect(out.map(Math.abs).subarray(1)).toEqual(Float32Array.of(0, 0, 0));
  });
});
