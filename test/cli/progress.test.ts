import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { progressWriter } from "../../src/cli/progress.ts";

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
  it("rewrites one line in a terminal, ten times a second at most", () => {
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

  it("puts lines that stay above the one of the moment", () => {
    const { progress, text } = writer({ isTTY: true, columns: 80 });
    progress.line("first");
    progress.update("one");
    progress.line("second");
    expect(text()).toBe(`first\n${clear}one${clear}second\n${clear}one`);
    progress.end();
    progress.line("third");
    expect(text()).toBe("\nthird\n");
  });

  it("keeps to one line of a narrow terminal", () => {
    const { progress, text } = writer({ isTTY: true, columns: 8 });
    progress.update("12345678");
    expect(text()).toBe(`${clear}123456…`);
    const exact = writer({ isTTY: true, columns: 8 });
    exact.progress.update("1234567");
    expect(exact.text()).toBe(`${clear}1234567`);
  });

  it.each([
    ["a file", {}, "xterm"],
    ["a terminal that cannot go back", { isTTY: true, columns: 80 }, "dumb"],
  ])("writes new lines now and then to %s", (_, stream, term) => {
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
