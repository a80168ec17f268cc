import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { framesOf, picturesOf, valuesOf, withChannels } from "../../src/pictures/picture.ts";

const side = fc.integer({ min: 1, max: 3 });
const shape = fc.record({
  count: side,
  frames: side,
  height: side,
  width: side,
  channels: fc.constantFrom<1 | 3>(1, 3),
});

describe("frames", () => {
  it("survive the conversion to values and back", () => {
    fc.assert(
      fc.property(shape, ({ count, ...clip }) => {
        const size = clip.frames * clip.height * clip.width * clip.channels;
        const pixels = Uint8Array.from({ length: count * size }, (_, i) => (i * 37) % 256);
        const values = valuesOf(pixels, clip);
        expect(values.shape).toEqual([count, clip.channels, clip.frames, clip.height, clip.width]);
        const clips = framesOf(values);
        expect(clips).toEqual(
          Array.from({ length: count }, (_, i) => ({
            ...clip,
            pixels: pixels.slice(i * size, (i + 1) * size),
          })),
        );
      }),
      { seed: 1 },
    );
  });

  it("of a clip with one frame have the values of a picture", () => {
    const picture = { height: 2, width: 3, channels: 3 } as const;
    const pixels = Uint8Array.from({ length: 18 }, (_, i) => 14 * i);
    const [values, clip] = [valuesOf(pixels, picture), valuesOf(pixels, { ...picture, frames: 1 })];
    expect(values.shape).toEqual([1, 3, 2, 3]);
    expect(clip.shape).toEqual([1, 3, 1, 2, 3]);
    expect(clip.data).toEqual(values.data);
    expect(framesOf(clip)[0]!.pixels).toEqual(picturesOf(values)[0]!.pixels);
    expect(picturesOf(values)[0]).not.toHaveProperty("frames");
  });

  it.each([NaN, Infinity, -Infinity])("are refused where a value is %s", (value) => {
    const values = {
      dtype: "float32",
      shape: [1, 1, 1, 2],
      data: Float32Array.of(0, value),
    } as const;
    expect(() => picturesOf(values)).toThrow("NaN or infinite");
    expect(() => framesOf({ ...values, shape: [1, 1, 1, 1, 2] })).toThrow("NaN or infinite");
  });

  it("become grey all together", () => {
    const clip = {
      frames: 2,
      height: 1,
      width: 1,
      channels: 3,
      pixels: Uint8Array.of(1, 1, 1, 9, 9, 9),
    } as const;
    expect(withChannels(clip, 1)).toEqual({ ...clip, channels: 1, pixels: Uint8Array.of(1, 9) });
  });
});
