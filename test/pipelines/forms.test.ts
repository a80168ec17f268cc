import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { formDistances } from "../support/form-distances.ts";
import { smallModels } from "../support/flux-folders.ts";

// scripts/compare-forms.ts does so for all models and forms.
it("a Z-Image draws what the same numbers draw, and near to the whole ones, in 8 bits", async () => {
  const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-forms-"));
  const forms = ["fp8 e4m3, scale_weight", "int8 rotated by 64"];
  try {
    const found: string[] = [];
    for await (const { form, exact, distance } of formDistances(
      smallModels.zImage,
      scratch,
      forms,
    )) {
      found.push(form);
      expect([form, exact]).toEqual([form, expect.toSatisfy((most: number) => most <= 1)]);
      expect(distance).toBeLessThan(1);
      expect(distance).toBeGreaterThan(0);
    }
    expect(found).toEqual(forms);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});
