import { describe, expect, it } from "vitest";
import { type BlockFormat, blockFormats, decodeBlocks } from "../../src/engine/arrays/blocks.ts";
import { quantizeBlocks } from "../../src/engine/arrays/quantize.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";

const decoded = (format: BlockFormat, blocks: Uint8Array) => {
  const { numbers, bytes } = blockFormats[format];
  const values = new Float32Array((blocks.length / bytes) * numbers);
  decodeBlocks(format, blocks, 0, values);
  return values;
};

/** Blocks with a scale of 1.5 and numbers that fill the range of the type. */
function blocksOf(format: "Q8_0" | "Q4_0"): Uint8Array {
  const { bytes } = blockFormats[format];
  return Uint8Array.from({ length: 20 * bytes }, (_, i) => {
    const at = i % bytes;
    if (at < 2) return [0x00, 0x3e][at]!;
    const any = (i * 2_654_435_761) >>> 24;
    if (format === "Q4_0") return at === 5 ? any & 0xf0 : any;
    return at === 5 ? 127 : any === 128 ? 0 : any;
  });
}

describe("numbers are quantized by the rules of ggml", () => {
  it.each(["Q8_0", "Q4_0"] as const)("to the bytes that they came from, in %s", (format) => {
    const blocks = blocksOf(format);
    expect(quantizeBlocks(format, decoded(format, blocks))).toEqual(blocks);
  });

  it("with halves away from zero in Q8_0, and upwards in Q4_0", () => {
    const values = (first: readonly number[]) => {
      const all = new Float32Array(32);
      all.set(first);
      return all;
    };
    const eight = quantizeBlocks("Q8_0", values([127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49]));
    expect([...new Int8Array(eight.buffer).subarray(2, 9)]).toEqual([127, 1, -1, 2, 3, -3, 0]);
    const four = quantizeBlocks("Q4_0", values([-8, 0.5, -0.5, 7.9, 1.4, -3.6]));
    expect([...four.subarray(0, 8)]).toEqual([0, 0x3c, 0x80, 0x89, 0x88, 0x8f, 0x89, 0x84]);
    // A block of zeros has the scale −0, as ggml writes it.
    const zeros = quantizeBlocks("Q4_0", new Float32Array(32));
    expect([...zeros]).toEqual([0, 0x80, ...new Array<number>(16).fill(0x88)]);
    // The scale has the sign that makes the largest number −8.
    expect(decoded("Q4_0", quantizeBlocks("Q4_0", values([4, -3])))[0]).toBe(4);
  });

  it.each([
    ["Q8_0", 0.006],
    ["Q4_K", 0.075],
    ["Q4_0", 0.095],
  ] as const)("so that normal numbers change little in %s", (format, most) => {
    const { data } = normal(randomKey(7), [4096]);
    const after = decoded(format, quantizeBlocks(format, data));
    const rms = (x: Float32Array) => Math.sqrt(x.reduce((sum, value) => sum + value ** 2, 0));
    const error = rms(data.map((value, i) => value - after[i]!)) / rms(data);
    expect(error).toBeLessThan(most);
    expect(error).toBeGreaterThan(most / 2);
  });
});
