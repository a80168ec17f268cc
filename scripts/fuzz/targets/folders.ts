/** Folders in diffusers' layout: all their configs, beside sound weights and vocabularies. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { tryJson } from "../../../src/engine/bytes.ts";
import { openDiffusersFolder } from "../../../src/pipelines/open/diffusers.ts";
import { memoryFolder } from "../../../src/weights/sources/folder-memory.ts";
import { smallModels, writeSmallFolder } from "../../../test/support/flux-folders.ts";
import { writeDiffusersDiT } from "../../../test/support/model-folders.ts";
import { jsonValues, textWords } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const isConfig = (path: string) => /(^|\/)(config|scheduler_config|model_index)\.json$/.test(path);
const text = (content: unknown) => new TextEncoder().encode(JSON.stringify(content));

async function filesIn(folder: string): Promise<Record<string, Uint8Array>> {
  const all = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = all.filter((entry) => entry.isFile());
  const read = files.map(async ({ parentPath, name }) => {
    const path = join(parentPath, name);
    return [path.slice(folder.length + 1), new Uint8Array(await readFile(path))] as const;
  });
  return Object.fromEntries(await Promise.all(read));
}

export const open: OpenTarget = async (folder) => {
  const [dit, flux] = [join(folder, "dit"), join(folder, "flux")];
  await writeDiffusersDiT(dit);
  await writeSmallFolder(flux, smallModels.schnell);
  const models = await Promise.all([dit, flux].map(filesIn));
  const configs = models.map((files, model) => ({
    model,
    files: Object.fromEntries(
      Object.entries(files)
        .filter(([path]) => isConfig(path))
        .map(([path, content]) => [path, tryJson(new TextDecoder().decode(content))]),
    ),
  }));
  return {
    sound: configs.map(text),
    mutations: [jsonValues, jsonValues, jsonValues, textWords],
    async read(input) {
      const { model, files } = (tryJson(new TextDecoder().decode(input)) ?? {}) as {
        model?: unknown;
        files?: Record<string, unknown>;
      };
      const whole = models[model === 1 ? 1 : 0]!;
      const own =
        typeof files === "object" && files !== null
          ? Object.entries(files).map(([path, content]) => [path, text(content)] as const)
          : [["model_index.json", input.slice()] as const];
      const given = { ...whole, ...Object.fromEntries(own.filter(([path]) => isConfig(path))) };
      const opened = await openDiffusersFolder(memoryFolder(given, "folder"), {});
      await opened.close();
    },
  };
};
