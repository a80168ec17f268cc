import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToFloat16,
  fromBfloat16,
  fromFloat16,
  toBfloat16,
  toFloat16,
  toFloat32,
} from "../../src/engine/arrays/convert.ts";
import { allocate, dtypes, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";

const everyPattern = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
const wide = new Float32Array(65536);

/** The upper half of each float32, rounded to nearest even in whole numbers. */
function float32ToBfloat16(values: Float32Array, target: Uint16Array): void {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (const [i, word] of words.entries()) {
    target[i] =
      (word & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
}

describe.each([
  ["float16", float16ToFloat32, float32ToFloat16, fromFloat16, toFloat16],
  ["bfloat16", bfloat16ToFloat32, float32ToBfloat16, fromBfloat16, toBfloat16],
] as const)("%s", (_, widen, narrow, fromBits, toBits) => {
  function bulk(values: Float32Array): Uint16Array {
    const bits = new Uint16Array(values.length);
    narrow(values, bits);
    return bits;
  }
  const oneByOne = (values: Float32Array) => Uint16Array.from(values, toBits);

  it("widens all 65,536 patterns as the scalar function does", () => {
    widen(everyPattern, wide);
    expect(Array.from(wide)).toEqual(Array.from(everyPattern, fromBits));
    expect(Object.is(wide[0x8000], -0)).toBe(true);
  });

  it("narrows every representable value back to its own bits", () => {
    widen(everyPattern, wide);
    const numbers = everyPattern.filter((bits) => !Number.isNaN(fromBits(bits)));
    const back = bulk(wide);
    expect(numbers.every((bits) => back[bits] === bits)).toBe(true);
  });

  it("rounds the midpoint of each two neighbours, and the floats beside it, to nearest even", () => {
    const around = new Float32Array(3 * 65535);
    const bits = new Uint32Array(around.buffer);
    for (let i = 0; i < 65535; i++) {
      around[3 * i] = (fromBits(i) + fromBits(i + 1)) / 2;
      bits[3 * i + 1] = bits[3 * i]! - 1;
      bits[3 * i + 2] = bits[3 * i]! + 1;
    }
    expect(bulk(around)).toEqual(oneByOne(around));
  });

  it("rounds any float32 as the scalar function does", () => {
    fc.assert(
      fc.property(fc.uint32Array({ minLength: 1000, maxLength: 1000 }), (words) => {
        const values = new Float32Array(words.buffer);
        expect(bulk(values)).toEqual(oneByOne(values));
      }),
      { numRuns: 200, seed: 1 },
    );
    const extremes = Float32Array.of(0, -0, Infinity, -Infinity, NaN, 65504, 65519, 65520, -65520);
    expect(bulk(extremes)).toEqual(oneByOne(extremes));
    const hiddenPayload = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
    expect(bulk(hiddenPayload)).toEqual(oneByOne(hiddenPayload));
  });

  it("converts part by part", () => {
    const whole = new Float32Array(1000);
    const pieces = new Float32Array(1000);
    widen(everyPattern.subarray(0x3000, 0x3000 + 1000), whole);
    for (let i = 0; i < 1000; i += 300) {
      const end = Math.min(i + 300, 1000);
      widen(everyPattern.subarray(0x3000 + i, 0x3000 + end), pieces.subarray(i, end));
    }
    expect(pieces).toEqual(whole);
  });

  it("rejects arrays of different lengths", () => {
    expect(() => widen(new Uint16Array(3), new Float32Array(2))).toThrow(
      "Conversion needs a target of 3 elements, as many as its source, but the target has 2.",
    );
    expect(() => float32ToFloat16(new Float32Array(2), new Uint16Array(3))).toThrow(/2 elements/);
  });
});

describe("toFloat32", () => {
  it.each(dtypes)("reads %s", (dtype) => {
    const array = ndarray(dtype, [3], [0, 1, dtype === "bool" ? 1 : 200]);
    const values = new Float32Array(3);
    toFloat32(dtype, array.data, values);
    expect(Array.from(values)).toEqual(toNumbers(array));
  });

  it("rejects a target that is too long", () => {
    expect(() => toFloat32("uint8", allocate("uint8", 1), new Float32Array(2))).toThrow(/has 2/);
  });
});
