import { describe, expect, it } from "vitest";
import { allocate, castArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";

// The numbers from +0 up, one row of mantissas for each exponent, by the definitions of the OCP specification (2023).
// prettier-ignore
const e4m3fn = [
  0, 0.001953125, 0.00390625, 0.005859375, 0.0078125, 0.009765625, 0.01171875, 0.013671875,
  0.015625, 0.017578125, 0.01953125, 0.021484375, 0.0234375, 0.025390625, 0.02734375, 0.029296875,
  0.03125, 0.03515625, 0.0390625, 0.04296875, 0.046875, 0.05078125, 0.0546875, 0.05859375,
  0.0625, 0.0703125, 0.078125, 0.0859375, 0.09375, 0.1015625, 0.109375, 0.1171875,
  0.125, 0.140625, 0.15625, 0.171875, 0.1875, 0.203125, 0.21875, 0.234375,
  0.25, 0.28125, 0.3125, 0.34375, 0.375, 0.40625, 0.4375, 0.46875,
  0.5, 0.5625, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375,
  1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
  2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75,
  4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5,
  8, 9, 10, 11, 12, 13, 14, 15,
  16, 18, 20, 22, 24, 26, 28, 30,
  32, 36, 40, 44, 48, 52, 56, 60,
  64, 72, 80, 88, 96, 104, 112, 120,
  128, 144, 160, 176, 192, 208, 224, 240,
  256, 288, 320, 352, 384, 416, 448, NaN,
];
// prettier-ignore
const e5m2 = [
  0, 1.52587890625e-5, 3.0517578125e-5, 4.57763671875e-5,
  6.103515625e-5, 7.62939453125e-5, 9.1552734375e-5, 0.0001068115234375,
  0.0001220703125, 0.000152587890625, 0.00018310546875, 0.000213623046875,
  0.000244140625, 0.00030517578125, 0.0003662109375, 0.00042724609375,
  0.00048828125, 0.0006103515625, 0.000732421875, 0.0008544921875,
  0.0009765625, 0.001220703125, 0.00146484375, 0.001708984375,
  0.001953125, 0.00244140625, 0.0029296875, 0.00341796875,
  0.00390625, 0.0048828125, 0.005859375, 0.0068359375,
  0.0078125, 0.009765625, 0.01171875, 0.013671875,
  0.015625, 0.01953125, 0.0234375, 0.02734375,
  0.03125, 0.0390625, 0.046875, 0.0546875,
  0.0625, 0.078125, 0.09375, 0.109375,
  0.125, 0.15625, 0.1875, 0.21875,
  0.25, 0.3125, 0.375, 0.4375,
  0.5, 0.625, 0.75, 0.875,
  1, 1.25, 1.5, 1.75,
  2, 2.5, 3, 3.5,
  4, 5, 6, 7,
  8, 10, 12, 14,
  16, 20, 24, 28,
  32, 40, 48, 56,
  64, 80, 96, 112,
  128, 160, 192, 224,
  256, 320, 384, 448,
  512, 640, 768, 896,
  1024, 1280, 1536, 1792,
  2048, 2560, 3072, 3584,
  4096, 5120, 6144, 7168,
  8192, 10240, 12288, 14336,
  16384, 20480, 24576, 28672,
  32768, 40960, 49152, 57344,
  Infinity, NaN, NaN, NaN,
];

describe.each([
  ["float8_e4m3fn", e4m3fn, 448],
  ["float8_e5m2", e5m2, 57344],
] as const)("%s", (dtype, positive, largest) => {
  const all = [...positive, ...positive.map((value) => -value)];
  const bits = Uint8Array.from({ length: 256 }, (_, pattern) => pattern);

  it("has the value of its table for each of the 256 patterns, one by one and in bulk", () => {
    const array = { dtype, shape: [256], data: bits };
    expect(toNumbers(array)).toEqual(all);
    expect(Array.from(castArray(array, "float32").data)).toEqual(all);
  });

  it("is written as the same pattern", () => {
    const written = ndarray(dtype, [256], all).data;
    // Of NaN there are several.
    const known = Array.from(bits).filter((pattern) => !Number.isNaN(all[pattern]!));
    expect(known.map((pattern) => written[pattern])).toEqual(known);
  });

  it("rounds to the nearest, ties to even, and beyond its range as PyTorch does", () => {
    const middle = (a: number) => (positive[a]! + positive[a + 1]!) / 2;
    const near = [middle(8), middle(9), middle(9) * (1 - 1e-9), middle(0), -middle(10)];
    const written = ndarray(dtype, [5], near).data;
    expect(Array.from(written)).toEqual([8, 10, 9, 0, 0x8a]);
    const step = largest - positive[positive.indexOf(largest) - 1]!;
    const beyond = toNumbers(ndarray(dtype, [3], [largest + step / 4, largest + step, Infinity]));
    const over = dtype === "float8_e5m2" ? Infinity : NaN;
    expect(beyond).toEqual([largest, over, over]);
    expect(toNumbers(ndarray(dtype, [1], [NaN]))).toEqual([NaN]);
  });

  it("takes a byte for each number", () => {
    expect(allocate(dtype, 3).byteLength).toBe(3);
  });
});
