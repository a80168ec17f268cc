/** Folders that `patchwise train` writes, and those that come with the package. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { packageFile } from "../engine/package-node.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { modelFiles } from "./card.ts";

/** Models that come with the package, a folder each. */
const shippedFolder = packageFile("models");

/** Names of the models that come with the package. */
export async function shippedModels(): Promise<string[]> {
  const names = await readdir(shippedFolder).catch(() => []);
  const found: string[] = [];
  for (const name of names) {
    if (await isTrainedFolder(join(shippedFolder, name))) found.push(name);
  }
  return found.toSorted();
}

/** The folder of a model that comes with the package; undefined where none has this name. */
export async function shippedModel(name: string): Promise<string | undefined> {
  return (await shippedModels()).includes(name) ? join(shippedFolder, name) : undefined;
}

export function isTrainedFolder(path: string): Promise<boolean> {
  return exists(join(path, modelFiles.card));
}
