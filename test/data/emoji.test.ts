import { describe, expect, test } from "vitest";
import {
  emojiCaptions,
  emojiGroups,
  emojiStyleNames,
  subjectOf,
} from "../../src/data/formats/emoji/captions.ts";
import { type DataConfigOf, emojiSchema } from "../../src/data/config.ts";
import { openEmoji } from "../../src/data/formats/emoji/emoji-node.ts";
import { locatePackageFiles } from "../../src/data/formats/emoji/packages-node.ts";
import { UsageError } from "../../src/engine/errors.ts";

const shape = { height: 16, width: 16, channels: 3 } as const;
const open = (
  options: Partial<DataConfigOf<"emoji">> = {},
  size: Parameters<typeof openEmoji>[1] = shape,
) => openEmoji(emojiSchema.parse({ kind: "emoji", split: "all", ...options }), size);

/** Label and style of every picture. */
async function namesOf(options: Partial<DataConfigOf<"emoji">>) {
  const set = await open(options);
  return Array.from({ length: set.count }, (_, i) => {
    const [, label, style] = /^(.*) \(([^()]+)\)$/.exec(set.nameOf(i))!;
    return { label: label!, style: style! };
  });
}

describe("captions", () => {
  test("a picture is called by its label, with and without style and tags", () => {
    const captions = emojiCaptions("red apple", ["apple", "fruit", "red"], "flat");
    expect(captions.slice(0, 5)).toEqual([
      "red apple",
      "a red apple",
      "red apple, flat style",
      "flat red apple",
      "flat style emoji of a red apple",
    ]);
    expect(captions).toHaveLength(9);
    expect(new Set(captions[6]!.split(", "))).toEqual(
      new Set(["red apple", "apple", "fruit", "red", "flat style"]),
    );
  });

  test("no caption repeats a tag, and one without tags has no empty words", () => {
    for (const tags of [[], ["one"], ["one", "two"], ["1", "2", "3", "4", "5", "6", "7", "8"]]) {
      for (const caption of emojiCaptions("woman: one", tags, "noto")) {
        const words = caption.split(", ");
        expect(new Set(words).size).toBe(words.length);
        expect(words).not.toContain("");
      }
    }
  });

  test("labels read as one would say them", () => {
    expect(subjectOf("flag: Japan")).toBe("flag of Japan");
    expect(subjectOf("keycap: 1")).toBe("keycap 1");
    expect(subjectOf("woman: red hair")).toBe("woman, red hair");
    const articles = [
      "umbrella",
      "unicorn",
      "glasses",
      "two hearts, pink",
      "UP! button",
      "cross",
      "one o’clock",
    ];
    expect(articles.map((label) => emojiCaptions(label, [], "3d")[1])).toEqual([
      "an umbrella",
      "a unicorn",
      "glasses",
      "two hearts, pink",
      "UP! button",
      "a cross",
      "a one o’clock",
    ]);
  });
});

describe("the emoji set", () => {
  test("has every style, and no emoji twice in one", async () => {
    const names = await namesOf({});
    const counts = emojiStyleNames.map((style) => names.filter((n) => n.style === style).length);
    expect(Math.min(...counts)).toBeGreaterThan(400);
    expect(names.length).toBeGreaterThan(9000);
    expect(new Set(names.map(({ label, style }) => `${label}/${style}`)).size).toBe(names.length);
  });

  test("holds out one emoji in twenty, in all styles and skin tones", async () => {
    const some = { styles: ["flat", "3d"] } satisfies Partial<DataConfigOf<"emoji">>;
    const train = await namesOf({ ...some, split: "train", skinTones: true });
    const held = await namesOf({ ...some, split: "held-out", skinTones: true });
    const all = await namesOf({ ...some, skinTones: true });
    expect(train.length + held.length).toBe(all.length);
    const labels = new Set(held.map(({ label }) => label));
    expect(train.filter(({ label }) => labels.has(label))).toEqual([]);
    // "waving hand: light skin tone" is held out where "waving hand" is.
    const toned = held.flatMap(({ label }) => /^([^:]+): [\w-]+ skin tone$/.exec(label)?.[1] ?? []);
    expect(toned.length).toBeGreaterThan(20);
    expect(toned.filter((label) => !labels.has(label))).toEqual([]);
    const base = await namesOf(some);
    const heldBase = (await namesOf({ ...some, split: "held-out" })).length / base.length;
    expect(heldBase).toBeGreaterThan(0.03);
    expect(heldBase).toBeLessThan(0.07);
  });

  test("can be narrowed to styles, groups and a number of pictures", async () => {
    const food = await namesOf({ styles: ["flat", "3d"], groups: ["food-drink"] });
    expect(food.map(({ label }) => label)).toContain("red apple");
    expect(food.map(({ label }) => label)).not.toContain("dog");
    expect(new Set(food.map(({ style }) => style))).toEqual(new Set(["flat", "3d"]));
    const few = await namesOf({ styles: ["flat"], limit: 10 });
    expect(few).toHaveLength(10);
    expect(new Set(few.map(({ label }) => label)).size).toBe(10);
    expect(emojiGroups).toHaveLength(10);
  });

  test("draws art of either kind on white, at the shape asked for", async () => {
    for (const styles of [["noto"], ["3d"]] as const) {
      const wide = { height: 24, width: 48, channels: 3 } as const;
      const set = await open({ styles: [...styles], groups: ["food-drink"] }, wide);
      const index = Array.from({ length: set.count }, (_, i) => i).find((i) =>
        set.nameOf(i).startsWith("red apple"),
      )!;
      const { pixels, label, captions } = await set.example(index);
      expect(label).toBeUndefined();
      expect(captions).toContain("red apple");
      expect(pixels).toHaveLength(24 * 48 * 3);
      const at = (y: number, x: number) => [...pixels.subarray((y * 48 + x) * 3).subarray(0, 3)];
      expect(at(0, 0)).toEqual([255, 255, 255]);
      expect(at(12, 2)).toEqual([255, 255, 255]);
      expect(at(12, 46)).toEqual([255, 255, 255]);
      const [red, green, blue] = at(14, 24) as [number, number, number];
      expect(red).toBeGreaterThan(150);
      expect(Math.max(green, blue)).toBeLessThan(110);
      await set.close();
    }
  });

  test("draws in grey", async () => {
    const set = await open({ styles: ["flat"], limit: 3 }, { ...shape, channels: 1 });
    const { pixels } = await set.example(1);
    expect(pixels).toHaveLength(16 * 16);
    expect(pixels[0]).toBe(255);
    expect(Math.min(...pixels)).toBeLessThan(250);
  });

  test("gives an aliased icon mirrored where its set says so", async () => {
    const set = await open({ styles: ["flat"], groups: ["people-body"] });
    const pixelsOf = async (name: string) => {
      const index = Array.from({ length: set.count }, (_, i) => i).find(
        (i) => set.nameOf(i) === `backhand index pointing ${name} (flat)`,
      )!;
      return (await set.example(index)).pixels;
    };
    const [left, right] = [await pixelsOf("left"), await pixelsOf("right")];
    const mirrored = left.map((_, i) => {
      const [pixel, channel] = [Math.floor(i / 3), i % 3];
      const [y, x] = [Math.floor(pixel / 16), pixel % 16];
      return left[(y * 16 + 15 - x) * 3 + channel]!;
    });
    const apart = right.map((value, i) => Math.abs(value - mirrored[i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(2);
    expect(right).not.toEqual(left);
  });
});

test("the config knows its keys and styles", () => {
  expect(emojiSchema.parse({ kind: "emoji" })).toEqual({
    kind: "emoji",
    styles: emojiStyleNames,
    skinTones: false,
    split: "train",
    flip: false,
  });
  expect(emojiSchema.safeParse({ kind: "emoji", style: ["noto"] }).success).toBe(false);
  expect(emojiSchema.safeParse({ kind: "emoji", styles: ["apple"] }).success).toBe(false);
});

test("packages that are not installed are named with the way to get them", () => {
  const wanted = ["@no-such/package/icons.json", "zod/package.json", "no-such-package/a/b.json"];
  expect(() => locatePackageFiles(wanted, "The emoji set")).toThrow(
    new UsageError(
      "The emoji set needs packages that are not installed; run `npm install @no-such/package no-such-package`.",
    ),
  );
  expect(locatePackageFiles(["zod/package.json"], "It")[0]).toMatch(/zod.package\.json$/);
});
