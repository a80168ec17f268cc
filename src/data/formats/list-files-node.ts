/** The files in a folder, in an order that is the same on every machine. */
import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { byCodeUnits } from "./columns.ts";

/**
 * All files below a folder, as paths relative to it with "/", sorted; links are followed, hidden files and folders are not
 * looked at.
 *
 * @throws UsageError when there is no such folder, or a part of it may not be read
 */
export async function listFiles(root: string): Promise<string[]> {
  const found: string[] = [];
  const visit = async (folder: string, above: readonly string[]): Promise<void> => {
    const path = join(root, folder);
    const real = await attempt(realpath(path), path);
    // A link to a folder that it lies in would lead round for ever.
    if (above.includes(real)) return;
    for (const entry of await attempt(readdir(path, { withFileTypes: true }), path)) {
      // Hidden are also macOS's "._" companions, which have the names of pictures; __MACOSX is where zip files keep them.
      if (entry.name.startsWith(".") || entry.name === "__MACOSX") continue;
      const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
      // A link that leads nowhere is a file that cannot be read, and is named when it is.
      const kind = entry.isSymbolicLink()
        ? await stat(join(root, name)).catch(() => undefined)
        : entry;
      if (kind?.isDirectory()) await visit(name, [...above, real]);
      else found.push(name);
    }
  };
  await visit("", []);
  return found.sort(byCodeUnits);
}

function attempt<T>(step: Promise<T>, path: string): Promise<T> {
  return step.catch((cause: unknown) => {
    throw new UsageError(`Cannot open the folder ${path}: ${describeSystemError(cause)}.`, {
      cause,
    });
  });
}
