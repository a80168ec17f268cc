import { spawnSync } from "node:child_process";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

function info(...args: string[]) {
  const command = ["scripts/run.mjs", "src/cli/main.ts", "info", ...args];
  const run = spawnSync(process.execPath, command, { cwd: root, encoding: "utf8" });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

describe("patchwise info", () => {
  it("prints one JSON object and nothing else with --json", () => {
    const { code, out, err } = info("DiT-S/2", "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const costs = JSON.parse(out);
    expect(costs).toEqual({
      parameters: 32_865_056,
      gflops: expect.closeTo(6.0557, 4),
      tokens: 256,
      memory_bytes: expect.any(Number),
    });
    // Weights in float32, and activations that are small beside them.
    expect(costs.memory_bytes / (4 * costs.parameters)).toBeGreaterThan(1);
    expect(costs.memory_bytes / (4 * costs.parameters)).toBeLessThan(1.2);
  });

  it("prints a line for each cost", () => {
    const { code, out } = info("DiT-S/8");
    expect(code).toBe(0);
    expect(out).toMatch(
      /^DiT-S\/8\n {2}parameters +33,142,016\n {2}Gflops +0\.36 .*\n {2}tokens +16\n {2}memory +\d+ MiB\n$/,
    );
  });

  it.each([
    [
      "DiT-LX/2",
      /^patchwise: There is no model "DiT-LX\/2"; the nearest are DiT-L\/2, [^\n]+\.\n$/,
    ],
    [
      "nothing-alike",
      /^patchwise: There is no model "nothing-alike"; known are DiT-S\/8, [^\n]+\.\n$/,
    ],
  ])("names presets where %s is none", (name, sentence) => {
    const { code, out, err } = info(name);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(sentence);
  });
});
