import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { writeReadmePage } from "../../scripts/apps/readme.mjs";

const example = path.resolve(import.meta.dirname, "../../examples/apps/vite");

it("README shows the whole page of examples/apps/vite, which has fewer than 40 lines", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "patchwise-readme-"));
  try {
    expect(writeReadmePage(folder)).toBeLessThan(40);
    for (const file of ["index.html", "main.js"]) {
      const shown = readFileSync(path.join(folder, file), "utf8");
      expect(shown).toBe(readFileSync(path.join(example, file), "utf8"));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
