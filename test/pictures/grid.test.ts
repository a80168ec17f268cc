import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Picture } from "../../src/pictures/picture.ts";
import { pictureGrid } from "../../src/pictures/grid.ts";
import { UsageError } from "../../src/engine/errors.ts";

const grey = (width: number, height: number, pixels: number[]): Picture => ({
  width,
  height,
  channels: 1,
  pixels: Uint8Array.from(pixels),
});

describe("pictureGrid", () => {
  it("arranges pictures in rows with gaps between them", () => {
    const pictures = [1, 2, 3].map((value) => grey(2, 1, [value, 10 * value]));
    expect(pictureGrid(pictures, 2, { gap: 1, background: 9 })).toEqual(
      grey(5, 3, [1, 10, 9, 2, 20, 9, 9, 9, 9, 9, 3, 30, 9, 9, 9]),
    );
    expect(pictureGrid(pictures, 5, { gap: 0, scale: 2 })).toEqual(
      grey(
        12,
        2,
        [1, 2].flatMap(() => [1, 1, 10, 10, 2, 2, 20, 20, 3, 3, 30, 30]),
      ),
    );
  });

  it("places every pixel correctly for any size, scale and gap", () => {
    const law = fc.property(
      fc.record({
        width: fc.integer({ min: 1, max: 4 }),
        height: fc.integer({ min: 1, max: 4 }),
        channels: fc.constantFrom(1 as const, 3 as const),
        count: fc.integer({ min: 1, max: 7 }),
        columns: fc.integer({ min: 1, max: 9 }),
        gap: fc.integer({ min: 0, max: 3 }),
        scale: fc.integer({ min: 1, max: 3 }),
      }),
      ({ width, height, channels, count, columns, gap, scale }) => {
        const length = width * height * channels;
        const pictures = Array.from({ length: count }, (_, i) => ({
          width,
          height,
          channels,
          pixels: Uint8Array.from({ length }, (__, j) => (31 * i + 7 * j) % 250),
        }));
        const grid = pictureGrid(pictures, columns, { gap, scale, background: 255 });
        const pitch = { x: width * scale + gap, y: height * scale + gap };
        const across = Math.min(columns, count);
        expect(grid.width).toBe(across * pitch.x - gap);
        expect(grid.pixels.length).toBe(grid.width * grid.height * channels);
        for (const [at, value] of grid.pixels.entries()) {
          const pixel = Math.floor(at / channels);
          const [x, y] = [pixel % grid.width, Math.floor(pixel / grid.width)];
          const [column, row] = [Math.floor(x / pitch.x), Math.floor(y / pitch.y)];
          const inside = [x - column * pitch.x, y - row * pitch.y].map((offset) =>
            Math.floor(offset / scale),
          ) as [number, number];
          const picture =
            inside[0] < width && inside[1] < height ? pictures[row * columns + column] : undefined;
          const from = (inside[1] * width + inside[0]) * channels + (at % channels);
          if (value !== (picture?.pixels[from] ?? 255)) return false;
        }
        return true;
      },
    );
    expect(() => fc.assert(law, { seed: 1, numRuns: 300 })).not.toThrow();
  });

  it("requires at least one picture, all of one size", () => {
    expect(() => pictureGrid([], 3)).toThrow(
      new UsageError("A grid needs at least one picture, got none."),
    );
    expect(() => pictureGrid([grey(1, 1, [0]), grey(2, 1, [0, 0])], 3)).toThrow(
      new UsageError(
        "All pictures of a grid must have one size, but one is 2×1 in grey and the first is 1×1 in grey; resize them.",
      ),
    );
  });

  it("writes a line above each row, cut off where the row ends", () => {
    const pictures = [0, 1].map(() => grey(20, 3, new Array<number>(60).fill(9)));
    const grid = (...titles: string[]) => pictureGrid(pictures, 1, { gap: 0, titles });
    const { width, height, pixels } = grid("I", "dé");
    expect({ width, height }).toEqual({ width: 20, height: 2 * (3 + 10) });
    const rows = Array.from({ length: 9 }, (_, y) =>
      Array.from(pixels.slice(20 * y, 20 * y + 8), (value) => (value === 0 ? "#" : ".")).join(""),
    );
    expect(rows).toEqual([
      "........",
      ".####...",
      "..##....",
      "..##....",
      "..##....",
      "..##....",
      "..##....",
      ".####...",
      "........",
    ]);
    // Room for two letters, and the two dots that say that there were more.
    expect(grid("abc", "").pixels).toEqual(grid("..", "").pixels);
    expect(grid("狗", "").pixels).not.toEqual(grid("", "").pixels);
  });
});
