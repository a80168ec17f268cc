/**
 * Draws small models of each family of published files in each form: what a form draws must be what the same numbers draw as float32, and
 * the distance to the whole numbers is printed. With names of models, only these:
 *
 *     node scripts/run.mjs scripts/compare-forms.ts [schnell|dev|klein|zImage …]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { formDistances } from "../test/support/form-distances.ts";
import { smallModels } from "../test/support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-forms-"));
const names = Object.keys(smallModels) as (keyof typeof smallModels)[];
const asked = process.argv.slice(2);
try {
  for (const name of names.filter((each) => asked.length === 0 || asked.includes(each))) {
    for await (const { form, exact, distance } of formDistances(smallModels[name], scratch)) {
      console.log(
        `${name.padEnd(8)} ${form.padEnd(24)} largest difference to the same numbers ${exact}, mean distance to the whole ones ${distance.toFixed(2)} of 255`,
      );
      if (exact > 1) process.exitCode = 1;
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
