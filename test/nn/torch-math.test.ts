import { describe, expect, it } from "vitest";
import { torchCos } from "../../src/nn/torch-math.ts";

const floats = (...bits: number[]) => [...new Float32Array(Uint32Array.from(bits).buffer)];

describe("torchCos", () => {
  // torch.cos of float32 numbers, PyTorch 1.13.1 on a CPU with AVX2, as bits.
  const angles = floats(
    0x00000000,
    0x3fc90fdb,
    0x3f490fdb,
    0x3ec3f62b,
    0x3e469a10,
    0x3afe7b35,
    0x3e94f25a,
    0x3ec3fec4,
    0x3f9202dc,
    0x3ea3e7db,
    0x3fac7db5,
    0x3fc90ab5,
    0x3f060a91,
    0x3da0d97c,
    0x3f754baa,
  );
  const cosines = floats(
    0x3f800000,
    0xb33bbd2e,
    0x3f3504f3,
    0x3f6d7a32,
    0x3f7b3347,
    0x3f7fffe0,
    0x3f753e5d,
    0x3f6d7896,
    0x3ed57a1b,
    0x3f72fe73,
    0x3e62ac81,
    0x3924b444,
    0x3f5db3d8,
    0x3f7f35f9,
    0x3f13338b,
  );

  it("equals PyTorch bit by bit, even where PyTorch is not correctly rounded", () => {
    expect(angles.map(torchCos)).toEqual(cosines);
    expect(angles.map((x) => Math.fround(Math.cos(x)))).not.toEqual(cosines);
  });

  it("is within a unit in the last place of the cosine", () => {
    for (let x = 0; x < 3.14; x += 0.0037) {
      const exact = Math.cos(Math.fround(x));
      expect(Math.abs(torchCos(Math.fround(x)) / exact - 1)).toBeLessThan(2 ** -23);
    }
  });
});
