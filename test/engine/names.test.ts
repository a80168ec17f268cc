import { expect, it } from "vitest";
import { nameFinder } from "../../src/engine/names.ts";

it("finds names however their letters are composed, but the same spelling first", () => {
  const [composed, apart] = ["caf\u00e9", "cafe\u0301"];
  expect(nameFinder([composed])(apart)).toBe(composed);
  expect(nameFinder([apart])(composed)).toBe(apart);
  const both = nameFinder([composed, apart]);
  expect([both(composed), both(apart)]).toEqual([composed, apart]);
  expect(both("cafe")).toBeUndefined();
});
