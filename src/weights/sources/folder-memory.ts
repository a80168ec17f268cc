/** A model's folder whose files are in memory. */
import { FormatError } from "../../engine/errors.ts";
import { openSafetensors } from "../safetensors/safetensors.ts";
import type { ModelFolder } from "./folder.ts";
import { bytesSource } from "./source.ts";

/**
 * @param files contents by name, such as those that `modelBytes` of `patchwise/training` returns
 * @param name the name of the folder, for messages
 */
export function memoryFolder(
  files: Readonly<Record<string, Uint8Array>>,
  name = "memory",
): ModelFolder {
  const pathOf = (file: string) => `${name}/${file}`;
  const read = async (file: string) => {
    const bytes = files[file];
    if (bytes) return new Uint8Array(bytes);
    throw new FormatError(
      `There is no ${file} among the files in memory (${Object.keys(files).join(", ") || "none"}); give it, too.`,
    );
  };
  return {
    name,
    basename: name,
    pathOf,
    has: async (file) => Object.hasOwn(files, file),
    read,
    weights: async (file) => openSafetensors(bytesSource(await read(file), pathOf(file))),
    folder(inside) {
      const own = Object.entries(files).filter(([file]) => file.startsWith(`${inside}/`));
      const names = own.map(([file, bytes]) => [file.slice(inside.length + 1), bytes] as const);
      return memoryFolder(Object.fromEntries(names), pathOf(inside));
    },
  };
}
