/** Damaged files of every kind, for a minute; `npm run fuzz` does the same for an hour. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-fuzz-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function fuzz(...args: readonly string[]) {
  const command = ["scripts/run.mjs", "scripts/fuzz.ts", "--out", scratch, ...args];
  const run = spawnSync(process.execPath, command, { cwd: root, encoding: "utf8" });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

describe("damaged files", () => {
  it("are read or refused in one sentence, whatever kind they are of", () => {
    const count = 200;
    const { code, out, err } = fuzz("--count", `${count}`, "--seed", "1");
    expect({ code, out, err }).toMatchObject({ code: 0, err: "" });
    const rows = out.matchAll(/^(\w+): (\d+) inputs .* (\d+) read, (\d+) kinds of refusals/gm);
    const targets = [...rows].map(([, name, inputs, read, kinds]) => {
      expect(Number(inputs)).toBe(count);
      // Damage that is always noticed at the same place, or never, would test little.
      expect(Number(read)).toBeGreaterThan(count / 50);
      expect(Number(read)).toBeLessThan(count);
      expect(Number(kinds)).toBeGreaterThan(4);
      return `${name}.ts`;
    });
    expect(targets.sort()).toEqual(readdirSync(path.join(root, "scripts/fuzz/targets")).sort());
  }, 300_000);

  it("show crashes, unclear messages, hangs, memory and the end of the process", () => {
    const target = ["--target", "test/support/broken-target.ts", "--seed", "8"];
    const { code, out } = fuzz(...target, "--count", "8");
    expect(code).toBe(1);
    for (const flaw of [
      "not an error of the project: TypeError: undefined is not a function",
      "no sentence: f is damaged",
      "hangs for 5 s",
      "the process has ",
      "ends the process with SIGABRT",
    ]) {
      expect(out).toContain(flaw);
    }
    const kept = readdirSync(scratch).find((name) => name.startsWith("broken-target-8-"))!;
    const index = kept.split("-").at(-1)!;
    const again = fuzz(...target, "--from", index, "--count", "1");
    expect(again.out).toContain(`input ${index}:`);
    expect(readFileSync(path.join(scratch, kept))).toHaveLength(1);
  }, 120_000);

  it("are not made where an option is wrong", () => {
    expect(fuzz("--count", "many")).toMatchObject({
      code: 2,
      err: "--count must be a number from 0, but is many.\n",
    });
    expect(fuzz("--target", "zip")).toMatchObject({ code: 2 });
  });
});
