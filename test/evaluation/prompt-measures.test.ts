import { describe, expect, it } from "vitest";
import { randomKey, uniform } from "../../src/engine/random/random.ts";
import { colourShare, OBEYED } from "../../src/evaluation/colour.ts";
import { halved, memorisation, nearestPictures } from "../../src/evaluation/memorisation.ts";
import { accuracyOf, nearestNamesOf, rankOf } from "../../src/evaluation/retrieval.ts";
import type { Picture } from "../../src/pictures/picture.ts";

/** Rows of length 1 with random directions. */
function directions(count: number, width: number, seed: number) {
  const values = Float32Array.from(
    uniform(randomKey(seed), [count, width]).data,
    (value) => value - 0.5,
  );
  for (let i = 0; i < count; i++) {
    const row = values.subarray(i * width, (i + 1) * width);
    const length = Math.hypot(...row);
    for (let k = 0; k < width; k++) row[k]! /= length;
  }
  return { count, width, values };
}

describe("naming by the nearest pictures", () => {
  const features = directions(60, 16, 1);
  // Three pictures show each name.
  const names = Array.from({ length: 60 }, (_, i) => `emoji ${i % 20}`);
  const gallery = { features, names };
  const nearest = (row: number) => nearestNamesOf(features, row, gallery, 5);
  const named = (row: number) => nearest(row).map(({ name }) => name);
  const called = (...answers: string[]) => answers.map((name) => ({ name }));

  it("finds a picture's own name first, and each name once", () => {
    for (let row = 0; row < 60; row++) {
      expect(named(row)[0]).toBe(names[row]);
      expect(new Set(named(row)).size).toBe(5);
    }
  });

  it("finds only what is allowed", () => {
    const found = nearestNamesOf(features, 7, gallery, 20, (index) => index >= 40);
    expect(found).toHaveLength(20);
    expect(found.every(({ index }) => index >= 40)).toBe(true);
  });

  it("scores shuffled answers at chance", () => {
    const ranks = Array.from({ length: 60 }, (_, row) =>
      rankOf(nearest(row), [`emoji ${(row + 1 + (row % 17)) % 20}`]),
    );
    const { top1, top5 } = accuracyOf(ranks);
    expect(top1).toBe(0);
    // Five names of twenty are right by chance in a quarter of the cases.
    expect(top5).toBeGreaterThan(0.05);
    expect(top5).toBeLessThan(0.45);
  });

  it("takes any right answer, at its best place", () => {
    expect(rankOf(called("a", "b", "c"), ["c", "b"])).toBe(1);
    expect(rankOf(called("a"), ["b"])).toBe(-1);
    expect(accuracyOf([0, 1, 4, -1])).toEqual({ prompts: 4, top1: 0.25, top5: 0.75 });
  });
});

/** A heart of a colour on white, with a part of another colour on its left. */
function heart(colour: readonly number[], other = colour, part = 0): Picture {
  const side = 32;
  const pixels = new Uint8Array(side * side * 3).fill(255);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [u, v] = [(x - 15.5) / 11, (13 - y) / 11];
      const inside = (u * u + v * v - 1) ** 3 - u * u * v ** 3 < 0;
      if (inside) pixels.set(u < 2 * part - 1 ? other : colour, (y * side + x) * 3);
    }
  }
  return { width: side, height: side, channels: 3, pixels };
}

describe("colour obedience", () => {
  const hues = {
    red: [221, 46, 68],
    orange: [244, 144, 12],
    yellow: [253, 203, 88],
    green: [120, 177, 89],
    blue: [85, 172, 238],
    purple: [170, 142, 214],
    brown: [193, 105, 79],
    black: [49, 55, 61],
    white: [230, 231, 232],
    pink: [244, 171, 186],
  } as const;
  const names = Object.keys(hues) as (keyof typeof hues)[];

  it.each(names)("is whole for a %s heart", (name) => {
    expect(colourShare(heart(hues[name]), name)).toBeGreaterThan(0.95);
  });

  const distinct = ["red", "green", "blue", "black", "white"] as const;
  const pairs = distinct.flatMap((name) =>
    distinct.flatMap((other) => (other === name ? [] : [[name, other] as const])),
  );

  it.each(pairs)("is not given to %s for a heart that is %s", (name, other) => {
    expect(colourShare(heart(hues[other]), name)).toBeLessThan(OBEYED);
  });

  it("is the share of the object, whatever the size of the background", () => {
    const share = colourShare(heart(hues.blue, hues.red, 0.25), "blue");
    expect(share).toBeGreaterThan(0.7);
    expect(share).toBeLessThan(0.9);
  });

  it("is none for an empty picture", () => {
    expect(colourShare(heart([255, 255, 255]), "red")).toBe(0);
    expect(colourShare(heart([255, 255, 255]), "white")).toBe(0);
  });
});

describe("the check for memorisation", () => {
  const shape = { height: 8, width: 8, channels: 3 } as const;
  const pictures = (seed: number, count: number) =>
    halved(
      Uint8Array.from(uniform(randomKey(seed), [count, 192]).data, (value) => 255 * value),
      shape,
    );
  const training = pictures(1, 30);
  const distances = (...args: Parameters<typeof nearestPictures>) =>
    nearestPictures(...args).map(({ distance }) => distance);
  const heldOut = distances(pictures(2, 40), training);

  it("takes copies for copies, and new pictures for new ones", () => {
    const copies = memorisation(distances(training.slice(0, 10), training), heldOut);
    expect(copies).toMatchObject({ median: 0, copies: 1 });
    const others = memorisation(distances(pictures(3, 40), training), heldOut);
    expect(others.copies).toBeLessThan(0.25);
    expect(others.median).toBeCloseTo(others.heldOutMedian, 1);
  });

  it("leaves out what is not allowed", () => {
    const own = distances(training, training, (row, index) => row !== index);
    expect(Math.min(...own)).toBeGreaterThan(0);
  });

  it("measures in shares of the range from black to white", () => {
    const [black, white] = [new Uint8Array(192), new Uint8Array(192).fill(255)];
    expect(distances(halved(black, shape), halved(white, shape))).toEqual([1]);
  });
});
