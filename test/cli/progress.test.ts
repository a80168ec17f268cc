import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { encodingLine, progressLine, progressWriter } from "../../src/cli/progress.ts";

const clear = "\r\x1b[K";
beforeEach(() => {
  vi.stubEnv("TERM", "xterm");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** A writer on a stream and a clock of the test's. */
function writer(stream: { isTTY?: boolean; columns?: number }, every?: number) {
  const written: string[] = [];
  const clock = { seconds: 0 };
  const progress = progressWriter(
    { ...stream, write: (text: string) => written.push(text) },
    { now: () => clock.seconds, ...(every !== undefined && { every }) },
  );
  return { progress, clock, text: () => written.splice(0).join("") };
}

describe("progressWriter", () => {
  it("rewrites one line in a terminal, at most ten times per second", () => {
    const { progress, clock, text } = writer({ isTTY: true, columns: 80 });
    progress.update("one");
    expect(text()).toBe(`${clear}one`);
    clock.seconds = 0.05;
    progress.update("two");
    expect(text()).toBe("");
    clock.seconds = 0.11;
    progress.update("three");
    expect(text()).toBe(`${clear}three`);
    progress.update("four");
    progress.end();
    expect(text()).toBe(`${clear}four\n`);
    progress.end();
    expect(text()).toBe("");
  });

  it("writes permanent lines above the progress line", () => {
    const { progress, text } = writer({ isTTY: true, columns: 80 });
    progress.line("first");
    progress.update("one");
    progress.line("second");
    expect(text()).toBe(`first\n${clear}one${clear}second\n${clear}one`);
    progress.end();
    progress.line("third");
    expect(text()).toBe("\nthird\n");
  });

  it("truncates to the width of the terminal", () => {
    const { progress, text } = writer({ isTTY: true, columns: 8 });
    progress.update("12345678");
    expect(text()).toBe(`${clear}123456…`);
    const exact = writer({ isTTY: true, columns: 8 });
    exact.progress.update("1234567");
    expect(exact.text()).toBe(`${clear}1234567`);
    // The width of terminals that do not know theirs.
    const unknown = writer({ isTTY: true, columns: 0 });
    unknown.progress.update("x".repeat(100));
    expect(unknown.text()).toHaveLength(clear.length + 79);
  });

  it.each([
    ["a file", {}, "xterm"],
    ["a terminal that cannot go back", { isTTY: true, columns: 80 }, "dumb"],
  ])("writes a new line every few seconds to %s", (_, stream, term) => {
    vi.stubEnv("TERM", term);
    const { progress, clock, text } = writer(stream, 10);
    progress.update("one");
    clock.seconds = 9.9;
    progress.update("two");
    progress.line("stays");
    clock.seconds = 10;
    progress.update("three");
    expect(text()).toBe("one\nstays\nthree\n");
    progress.end();
    expect(text()).toBe("");
    progress.update("four");
    progress.end();
    progress.end();
    expect(text()).toBe("four\n");
  });
});

describe("progressLine", () => {
  it("contains the known values", () => {
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
  ])("formats %d seconds as %s", (secondsLeft, text) => {
    expect(progressLine({ step: 1, secondsLeft })).toBe(`step 1  ${text} left`);
  });

  it("never shows 100 % before the end", () => {
    expect(progressLine({ step: 9999, steps: 10000, secondsLeft: 1 })).toContain("(99 %)");
    expect(progressLine({ step: 10000, steps: 10000, secondsLeft: 0 })).toContain("(100 %)");
  });
});

describe("encodingLine", () => {
  it("shows the share of encoded pictures", () => {
    expect(encodingLine({ done: 41, pictures: 120, secondsLeft: 90 })).toBe(
      "encoded 41 of 120 pictures (34 %)  1 min 30 s left",
    );
  });
});
