/**
 * Draws small models of each family of published files in each form: what a form draws must be what the same numbers draw as float32, and
 * the distance to the whole numbers is printed. With names of models, only these. With --built, the built command line draws with each
 * file too, in ComfyUI's folders, and its pixels must be those that the library draws. With --page, headless Chromium draws each form
 * on WebAssembly instead, within 1 of 255 of what Node draws.
 *
 *     node scripts/run.mjs scripts/compare-forms.ts [schnell|dev|klein|zImage|miniT2I …] [--built | --page]
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { readPictureFile } from "../src/pictures/index-node.ts";
import { openPipeline } from "../src/pipelines/open/open-node.ts";
import { finished } from "../src/pipelines/pipeline.ts";
import { smallModels, type SmallModel, writeSmallSplit } from "../test/support/flux-folders.ts";
import { formDistances } from "../test/support/form-distances.ts";
import type * as pageModule from "../test/browser/pipeline-page.ts";
import { openPage } from "../test/support/browser.ts";
import { drawnInPage } from "../test/support/page-forms.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { built: { type: "boolean" }, page: { type: "boolean" } },
});
const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-forms-"));

/** The largest difference between what the built command line and the library draw with a file of a network. */
async function apartFromBuilt(split: string, family: string, file: string): Promise<number> {
  const networks = path.join(split, "diffusion_models");
  for (const other of readdirSync(networks)) rmSync(path.join(networks, other));
  copyFileSync(file, path.join(networks, `${family}${path.extname(file)}`));
  const out = path.join(scratch, "drawn.png");
  const options = "--seed 3 --size 32x32 --steps 1 --out".split(" ");
  const command = [main, "generate", "a red cat", "--model", split, ...options, out];
  rmSync(out, { force: true });
  const { status, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" });
  if (status !== 0) throw new Error(`patchwise generate ended with ${status}: ${stderr}`);
  const { pixels } = await readPictureFile(out);
  await using pipeline = await openPipeline(split);
  const request = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  const [own] = await finished(pipeline.generate(request));
  if (pixels.length !== own!.pixels.length) return Infinity;
  return Math.max(...pixels.map((value, i) => Math.abs(value - own!.pixels[i]!)));
}

async function compare(name: string, model: SmallModel): Promise<void> {
  const split = path.join(scratch, `${name}-split`);
  if (values.built) await writeSmallSplit(split, model);
  for await (const { form, file, exact, distance } of formDistances(model, scratch)) {
    const apart = values.built ? await apartFromBuilt(split, model.family, file) : undefined;
    const built = apart === undefined ? "" : `, of the built command line to the library ${apart}`;
    console.log(
      `${name.padEnd(8)} ${form.padEnd(24)} largest difference to the same numbers ${exact}${built}, mean distance to the whole ones ${distance.toFixed(2)} of 255`,
    );
    if (exact > 1 || (apart ?? 0) > 0) process.exitCode = 1;
  }
}

async function compareInPage(models: readonly (keyof typeof smallModels)[]): Promise<void> {
  const entry = path.resolve(import.meta.dirname, "../test/browser/pipeline-page.ts");
  const page = await openPage<typeof pageModule>(entry, {}, { "/forms/": scratch });
  try {
    for (const name of models) {
      const place = { url: `/forms/${name}/`, served: path.join(scratch, name) };
      mkdirSync(place.served);
      for await (const { form, apart } of drawnInPage(page, place, smallModels[name])) {
        console.log(
          `${name.padEnd(8)} ${form.padEnd(24)} largest difference of the page to Node ${apart}`,
        );
        if (apart > 1) process.exitCode = 1;
      }
    }
  } finally {
    await page.close();
  }
}

const names = Object.keys(smallModels) as (keyof typeof smallModels)[];
const chosen = names.filter((name) => positionals.length === 0 || positionals.includes(name));
try {
  if (values.page) await compareInPage(chosen);
  else for (const name of chosen) await compare(name, smallModels[name]);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
