import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openPage } from "../support/browser.ts";

const root = path.resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-package-"));
const programs = ["train-in-node.mjs", "train-in-a-page.mjs"] as const;

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

/** Installs the packed package in a fresh folder, with the dependencies of this checkout. */
beforeAll(() => {
  const args = ["pack", "--ignore-scripts", "--pack-destination", folder, "--silent"];
  const tarball = execFileSync("npm", args, { cwd: root, encoding: "utf8" }).trim();
  const modules = path.join(folder, "node_modules");
  mkdirSync(path.join(modules, "patchwise"), { recursive: true });
  execFileSync("tar", [
    "-xzf",
    path.join(folder, tarball),
    "--strip-components=1",
    "-C",
    path.join(modules, "patchwise"),
  ]);
  for (const name of readdirSync(path.join(root, "node_modules"))) {
    if (name.startsWith(".") || name === "patchwise") continue;
    symlinkSync(path.join(root, "node_modules", name), path.join(modules, name));
  }
  for (const program of programs) {
    copyFileSync(path.join(root, "test/fixtures/package", program), path.join(folder, program));
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  readonly loss: number;
  readonly pixels: readonly number[];
}

/** A picture drawn as "light", after a training on one that is dark and one that is light. */
function expectLight({ loss, pixels }: Outcome): void {
  expect(loss).toBeLessThan(1);
  expect(pixels).toHaveLength(8 * 8 * 3);
  expect(pixels.reduce((sum, value) => sum + value, 0) / pixels.length).toBeGreaterThan(140);
}

describe("the packed package", () => {
  let inNode: Outcome;

  it.each(programs)("is all that %s imports, in 25 lines", (program) => {
    const text = readFileSync(path.join(root, "test/fixtures/package", program), "utf8");
    expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(25);
    const imported = [...text.matchAll(/from "([^"]+)"/g)].map(([, name]) => name!);
    expect(imported.filter((name) => !name.startsWith("patchwise/"))).toEqual([]);
  });

  it("trains a DiT on pictures in memory, saves it, opens it and draws, in Node", () => {
    const args = [programs[0], path.join(folder, "model")];
    const output = execFileSync("node", args, { cwd: folder, encoding: "utf8" });
    inNode = JSON.parse(output) as Outcome;
    expectLight(inNode);
    expect(readdirSync(path.join(folder, "model")).sort()).toEqual([
      "model.json",
      "model.safetensors",
    ]);
  });

  it("does the same in Chromium, with the model saved to memory", async () => {
    const page = await openPage<{ trainAndDraw(): Promise<Outcome> }>(
      path.join(folder, programs[1]),
    );
    try {
      const outcome = await page.call("trainAndDraw");
      expectLight(outcome);
      // Devices add in different orders, so that the trainings drift apart a little.
      expect(Math.abs(outcome.loss - inNode.loss)).toBeLessThan(0.01);
    } finally {
      await page.close();
    }
  });
});
