import { describe, expect, it } from "vitest";
import { encodingLine, progressLine } from "../../src/training/run/progress.ts";

describe("progressLine", () => {
  it("says what is known", () => {
    expect(
      progressLine({
        step: 30,
        steps: 120,
        loss: 0.25,
        imagesPerSecond: 412.3,
        secondsLeft: 90,
      }),
    ).toBe("step 30 of 120 (25 %)  loss 0.2500  412 images/s  1 min 30 s left");
    expect(progressLine({ step: 7, secondsLeft: Infinity })).toBe("step 7");
    expect(progressLine({ step: 7, loss: NaN, imagesPerSecond: 0.312, secondsLeft: 0 })).toBe(
      "step 7  loss NaN  0.31 images/s  0 s left",
    );
  });

  it.each([
    [-1, "0 s"],
    [59.4, "59 s"],
    [59.6, "1 min 0 s"],
    [3599, "59 min 59 s"],
    [7385, "2 h 3 min"],
    [86399.9, "1 d 0 h"],
    [200_000, "2 d 7 h"],
  ])("writes %d seconds as %s", (secondsLeft, text) => {
    expect(progressLine({ step: 1, secondsLeft })).toBe(`step 1  ${text} left`);
  });

  it("is not done before the end", () => {
    expect(progressLine({ step: 9999, steps: 10000, secondsLeft: 1 })).toContain("(99 %)");
    expect(progressLine({ step: 10000, steps: 10000, secondsLeft: 0 })).toContain("(100 %)");
  });
});

describe("encodingLine", () => {
  it("says how far it is", () => {
    expect(encodingLine({ done: 41, pictures: 120, secondsLeft: 90 })).toBe(
      "encoded 41 of 120 pictures (34 %)  1 min 30 s left",
    );
  });
});
