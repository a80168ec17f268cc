/**
 * Writes FLUX.1 schnell and dev, FLUX.2 [klein] and Z-Image of reduced width with random weights, each as a folder in diffusers' layout:
 *
 *     node scripts/run.mjs scripts/make-small-models.ts FOLDER
 */
import path from "node:path";
import { smallModels, writeSmallFolder } from "../test/support/flux-folders.ts";

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("Give the folder to write to.");
for (const [name, model] of Object.entries(smallModels)) {
  await writeSmallFolder(path.join(folder, name), model);
}
