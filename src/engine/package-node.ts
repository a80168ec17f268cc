/**
 * Locates the files of this package. The code may lie in one bundled file (the command line), in one file a module, or
 * in the sources, so paths are taken from the folder that holds package.json and not from the calling module.
 */
import { existsSync } from "node:fs";
import { dirname, extname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { PatchwiseError } from "./errors.ts";

const here = fileURLToPath(import.meta.url);
const root = nearestPackage(dirname(here));

/** Locates a file or folder of the package, such as "models/words". */
export function packageFile(path: string): string {
  return join(root, path);
}

/** @throws PatchwiseError if a file or folder of the package is missing, because a bundler moved the code without it */
export function requirePackageFile(path: string): string {
  const found = packageFile(path);
  if (existsSync(found)) return found;
  throw new PatchwiseError(
    `${found} belongs to Patchwise and is missing: a bundler copied the code without it, or it was deleted; make the package external in the bundler's settings (docs/apps.md shows how), or install it again.`,
  );
}

/** Locates a compiled module, or its source where the sources run, such as "engine/runtime/worker-entry-node". */
export function moduleFile(path: string): string {
  const [folder] = relative(root, here).split(sep);
  return join(root, folder!, `${path}${extname(here)}`);
}

function nearestPackage(folder: string): string {
  if (existsSync(join(folder, "package.json"))) return folder;
  const parent = dirname(folder);
  if (parent !== folder) return nearestPackage(parent);
  throw new PatchwiseError(
    `No folder above ${here} holds Patchwise's package.json: a bundler has taken its code away from its files; make the package external in the bundler's settings.`,
  );
}
