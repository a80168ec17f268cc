import { expect, it } from "vitest";
import type { DataSet } from "../../src/data/dataset.ts";
import { animated } from "../../src/data/motions.ts";
import { partOf } from "../../src/data/part-node.ts";

const dataOf = (count: number, name = "photos"): DataSet => ({
  name,
  count,
  classes: undefined,
  captioned: false,
  nameOf: (index) => `${name}/${index}.png`,
  example: () => Promise.reject(new Error("not read")),
  close: () => Promise.resolve(),
});
const namesOf = ({ count, nameOf }: Pick<DataSet, "count" | "nameOf">) =>
  Array.from({ length: count }, (_, index) => nameOf(index));

it("holds out a tenth of the pictures, and trains on the others", () => {
  const [held, rest] = (["held", "rest"] as const).map((of) =>
    partOf(dataOf(200), { share: 0.1, of }),
  );
  expect(held).toMatchObject({ count: 20, heldOut: 20 });
  expect(rest).toMatchObject({ count: 180, heldOut: 20 });
  const all = [...namesOf(held!), ...namesOf(rest!)].toSorted();
  expect(all).toEqual(namesOf(dataOf(200)).toSorted());
});

it("holds out the same pictures wherever their folder is and whatever their order", () => {
  const held = namesOf(partOf(dataOf(50), { share: 0.1, of: "held" }));
  const moved = partOf(dataOf(50, "/other/place"), { share: 0.1, of: "held" });
  expect(namesOf(moved)).toEqual(held.map((name) => name.replace("photos", "/other/place")));
  const data = dataOf(50);
  const turned = { ...data, nameOf: (index: number) => data.nameOf(49 - index) };
  expect(namesOf(partOf(turned, { share: 0.1, of: "held" })).toSorted()).toEqual(held.toSorted());
});

it("holds out nothing of a few pictures", () => {
  expect(partOf(dataOf(19), { share: 0.1, of: "rest" })).toMatchObject({ count: 19, heldOut: 0 });
  expect(partOf(dataOf(20), { share: 0.1, of: "rest" })).toMatchObject({ count: 18, heldOut: 2 });
});

it("takes at most so many pictures of a part", () => {
  const part = partOf(dataOf(100), { share: 0.2, of: "held", limit: 7 });
  expect(part).toMatchObject({ count: 7, heldOut: 20 });
  expect(new Set(namesOf(part)).size).toBe(7);
});

it("holds out pairs of a picture and a motion, and learns both parts of each", () => {
  const shape = { height: 8, width: 8, channels: 3, frames: 2 } as const;
  const moving = animated(dataOf(40), ["spin", "fade", "slide"], shape);
  const [held, rest] = (["held", "rest"] as const).map((of) =>
    namesOf(partOf(moving, { share: 0.1, of })).map((name) => name.split(", ")),
  );
  expect(held!.length).toBe(12);
  const [pictures, motions] = [0, 1].map((part) => new Set(rest!.map((name) => name[part])));
  for (const [picture, motion] of held!) {
    expect([pictures!.has(picture), motions!.has(motion)]).toEqual([true, true]);
  }
});
