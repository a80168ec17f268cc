import { describe, expect, it } from "vitest";
import { counted, nearestNames } from "../../src/engine/errors.ts";

describe("nearestNames", () => {
  const samplers = ["ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm++2m", "unipc"];

  it.each([
    ["eular", ["euler"]],
    ["DDIM", ["ddim", "ddpm"]],
    ["huen", ["heun"]],
    ["ancestral", ["euler-ancestral"]],
    ["", []],
    ["consistency-model", []],
  ])("of %s are %j", (name, expected) => {
    expect(nearestNames(name, samplers).slice(0, Math.max(1, expected.length))).toEqual(expected);
  });

  it("are at most three, nearest first, with ties in the given order", () => {
    expect(nearestNames("abcdef", ["abc", "abcdex", "abcxxf", "abcdey", "abcdef"])).toEqual([
      "abcdef",
      "abcdex",
      "abcdey",
    ]);
  });
});

it("counts things, one and many", () => {
  expect([0, 1, 2, 1200].map((count) => counted(count, "picture"))).toEqual([
    "0 pictures",
    "1 picture",
    "2 pictures",
    "1,200 pictures",
  ]);
});
