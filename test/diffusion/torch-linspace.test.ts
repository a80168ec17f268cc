import { describe, expect, it } from "vitest";
import { torchLinspace } from "../../src/diffusion/torch-linspace.ts";

// torch.linspace(1, 0, n), PyTorch 1.13.1 on a CPU with AVX2, as bits.
const recorded = [
  [
    0x3f800000, 0x3f600000, 0x3f400000, 0x3f200000, 0x3f000000, 0x3ec00000, 0x3e800000, 0x3e000000,
    0x0,
  ],
  [
    0x3f800000, 0x3f6aaaab, 0x3f555555, 0x3f400000, 0x3f2aaaaa, 0x3f155555, 0x3f000000, 0x3ed55556,
    0x3eaaaaab, 0x3e800000, 0x3e2aaaab, 0x3daaaaab, 0x0,
  ],
  [
    0x3f800000, 0x3f76db6e, 0x3f6db6db, 0x3f649249, 0x3f5b6db7, 0x3f524924, 0x3f492492, 0x3f400000,
    0x3f36db6e, 0x3f2db6dc, 0x3f249249, 0x3f1b6db7, 0x3f124925, 0x3f092492, 0x3f000000, 0x3eedb6dc,
    0x3edb6db8, 0x3ec92493, 0x3eb6db6e, 0x3ea4924a, 0x3e924925, 0x3e800000, 0x3e5b6db8, 0x3e36db6e,
    0x3e124925, 0x3ddb6db8, 0x3d924925, 0x3d124925, 0x0,
  ],
];

describe("torchLinspace", () => {
  it.each(recorded.map((bits) => [bits.length, bits] as const))(
    "of %d numbers is PyTorch's, bit by bit",
    (count, bits) => {
      const expected = [...new Float32Array(Uint32Array.from(bits).buffer)];
      expect([...torchLinspace(1, 0, count)]).toEqual(expected);
    },
  );

  it("of one number gives the first", () => {
    expect([...torchLinspace(0.7, 0.2, 1)]).toEqual([Math.fround(0.7)]);
  });
});
