/** Signals and closed streams of real processes. */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const command = [path.join(root, "scripts/run.mjs"), path.join(root, "src/cli/main.ts")];
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-signals-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  const pictures = path.join(folder, "pictures");
  mkdirSync(pictures);
  const grey = { create: { width: 16, height: 16, channels: 3, background: "grey" } } as const;
  for (const i of [0, 1])
    await sharp(grey)
      .png()
      .toFile(path.join(pictures, `${i}.png`));
  writeFileSync(
    path.join(folder, "deep.yaml"),
    // So deep that tracing and compiling take a while.
    `data: { kind: images, path: ${pictures} }
picture: { size: 16 }
model: { kind: dit, patch: 8, hidden: 32, depth: 24, heads: 2 }
training: { steps: 1, batch: 2, threads: 1 }
`,
  );
});

describe("a process that a signal reaches", () => {
  it.each([
    ["train", ["train", "deep.yaml", "--out", "run"], /Training a model/],
    ["generate", ["generate", "red heart", "--steps", "20", "--out", "heart.png"], /opening/],
  ] as const)(
    "ends within two seconds while %s compiles",
    async (_, args, when) => {
      const child = spawn(process.execPath, [...command, ...args], { cwd: folder });
      let told = "";
      let sent: number | undefined;
      child.stderr.on("data", (data: Buffer) => {
        told += data.toString();
        if (sent !== undefined || !when.test(told)) return;
        sent = performance.now();
        child.kill("SIGTERM");
      });
      await new Promise((resolve) => child.once("close", resolve));
      expect(told).toMatch(when);
      expect(performance.now() - sent!).toBeLessThan(2000);
      expect(told).not.toContain("step 1 of");
      expect(existsSync(path.join(folder, "heart.png"))).toBe(false);
    },
    240_000,
  );
});

describe("a process whose reader goes away", () => {
  it.each(["stdout", "stderr"] as const)(
    "does its work without %s",
    async (stream) => {
      const out = path.join(folder, `${stream}.png`);
      const args = [...command, "generate", "red heart", "--steps", "2", "--out", out, "--json"];
      const child = spawn(process.execPath, args, { cwd: folder });
      child[stream].destroy();
      const other = child[stream === "stdout" ? "stderr" : "stdout"];
      other.resume();
      expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
      expect(existsSync(out)).toBe(true);
    },
    240_000,
  );
});
