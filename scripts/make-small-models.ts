/**
 * Writes FLUX.1 schnell and dev, FLUX.2 [klein] and Z-Image of reduced width with random weights, each in every form that is read, with the
 * same numbers in all: a folder in diffusers' layout, the folders of ComfyUI, and those with GGUF files:
 *
 *     node scripts/run.mjs scripts/make-small-models.ts FOLDER
 */
import path from "node:path";
import { smallModels, writeSmallFolder, writeSmallSplit } from "../test/support/flux-folders.ts";

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("Give the folder to write to.");
for (const [name, model] of Object.entries(smallModels)) {
  await writeSmallFolder(path.join(folder, name), model);
  await writeSmallSplit(path.join(folder, `${name}-comfy`), model);
  await writeSmallSplit(path.join(folder, `${name}-gguf`), model, { gguf: true });
}
