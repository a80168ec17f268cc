import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { startChild } from "../../bench/child.ts";

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-child-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A contender that runs a script, with the path of a file as its argument. */
const script = (source: string, file = "") =>
  startChild({ command: process.execPath, args: ["-e", source, file], env: process.env });

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe("startChild", () => {
  it("exchanges lines with a contender", async () => {
    const child = await script(`
      const say = (message) => console.log(JSON.stringify(message));
      say({ settings: "one thread" });
      const kept = Buffer.alloc(2 ** 28, 1);
      process.stdin.on("data", () => say({ ms: 2, value: kept[0] }));`);
    if (typeof child === "string") throw new Error(child);
    expect(child.settings).toBe("one thread");
    const { processorMs, ...step } = await child.step();
    expect(step).toEqual({ ms: 2, value: 1 });
    // Only Linux tells.
    expect(processorMs ?? 0).toBeGreaterThanOrEqual(0);
    // Only Linux tells; there it is at least what the script holds.
    expect(child.peakMb() ?? Infinity).toBeGreaterThan(256);
    child.kill();
  });

  it("reports why an engine is absent, and how one died", async () => {
    expect(await script(`console.log('{"absent":"no such package"}')`)).toBe("no such package");
    await expect(script(`console.error("bad kernel"); process.exit(3)`)).rejects.toThrow(
      "it ended with code 3: bad kernel",
    );
  });

  it("ends a contender that does not follow the protocol", async () => {
    const file = path.join(folder, "pid");
    const noisy = script(
      `require("fs").writeFileSync(process.argv[1], String(process.pid)); console.log("hello"); setInterval(() => {}, 1000)`,
      file,
    );
    await expect(noisy).rejects.toThrow("JSON");
    const pid = Number(readFileSync(file, "utf8"));
    await expect.poll(() => runs(pid), { timeout: 5000 }).toBe(false);
  });
});
