/** A model's folder on disk. */
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { FormatError } from "../../engine/errors.ts";
import { exists } from "./files-node.ts";
import type { ModelFolder } from "./folder.ts";
import { openSafetensorsFile } from "../safetensors/file-node.ts";
import { describeSystemError } from "./system-error-node.ts";

export function diskFolder(path: string): ModelFolder {
  const pathOf = (file: string) => join(path, file);
  return {
    name: path,
    basename: basename(resolve(path)),
    pathOf,
    has: (file) => exists(pathOf(file)),
    read: (file) =>
      readFile(pathOf(file)).catch((error: unknown) => {
        throw new FormatError(`Cannot read ${pathOf(file)}: ${describeSystemError(error)}.`, {
          cause: error,
        });
      }),
    weights: (file) => openSafetensorsFile(pathOf(file)),
    folder: (name) => diskFolder(pathOf(name)),
  };
}
