import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { createFolder } from "../../src/weights/sources/system-error-node.ts";

const root = mkdtempSync(path.join(tmpdir(), "patchwise-folders-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (...parts: string[]) => path.join(root, ...parts);

it("creates a folder with those above it, at the same time as others do", async () => {
  const all = Array.from({ length: 8 }, () => createFolder(at("a", "b", "c", "")));
  await Promise.all(all);
  expect(existsSync(at("a", "b", "c"))).toBe(true);
  await createFolder(at("a"));
});

it("says what is in the way of a folder", async () => {
  writeFileSync(at("file"), "");
  await expect(createFolder(at("file"))).rejects.toThrow(
    `Cannot create the folder ${at("file")}: something else has this name; choose another one (EEXIST).`,
  );
  await expect(createFolder(at("file", "x", "y"))).rejects.toThrow("ENOTDIR");
});

// Node's own recursive mkdir does not end there.
it.runIf(existsSync("/proc/self"))("ends where no folder can be made", async () => {
  await expect(createFolder("/proc/nowhere/x")).rejects.toThrow("ENOENT");
});
