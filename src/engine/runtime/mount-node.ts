/** How a model in Node refers to the files that its weights lie in. */
import { realpathSync } from "node:fs";
import { dirname, relative, sep } from "node:path";
import { DeviceError } from "../errors.ts";
import type { Mount } from "./executor.ts";

/**
 * ONNX Runtime takes weights only from inside one folder, so that is the deepest one that holds all
 * files. Links are followed first: the Hugging Face cache is made of them, and ONNX Runtime refuses
 * to leave the folder through one.
 *
 * @throws DeviceError when no folder holds all files (on Windows, different drives)
 */
export function mountFiles(paths: readonly string[]): Mount {
  if (paths.length === 0) return { files: {} };
  const real = paths.map((path) => realpathSync(path));
  const folder = real.map(dirname).reduce(commonFolder);
  return {
    folder,
    files: Object.fromEntries(paths.map((path, i) => [relative(folder, real[i]!), path])),
  };
}

function commonFolder(a: string, b: string): string {
  const [left, right] = [a.split(sep), b.split(sep)];
  const differing = left.findIndex((part, i) => part !== right[i]);
  const shared = differing < 0 ? left : left.slice(0, differing);
  if (shared.length === 0) {
    throw new DeviceError(`Weights in ${a} and ${b} lie on different drives; put them on one.`);
  }
  return shared.join(sep) || sep;
}
