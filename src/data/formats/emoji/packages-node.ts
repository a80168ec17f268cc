/** Files of npm packages that are installed beside this one, and that it does not bring along itself. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { UsageError } from "../../../engine/errors.ts";

/**
 * Paths of files, each as "package/file": looked up from the working directory, then from this package.
 *
 * @param purpose what needs them, as the subject of the error's sentence
 * @throws UsageError that names every package which is not installed
 */
export function locatePackageFiles(files: readonly string[], purpose: string): readonly string[] {
  const origins = [join(process.cwd(), "package.json"), import.meta.url].map((path) =>
    createRequire(path),
  );
  const missing = new Set<string>();
  const paths = files.map((file) => {
    for (const origin of origins) {
      try {
        return origin.resolve(file);
      } catch {
        // The next origin may have it.
      }
    }
    missing.add(/^(@[^/]+\/)?[^/]+/.exec(file)![0]);
    return "";
  });
  if (missing.size === 0) return paths;
  throw new UsageError(
    `${purpose} needs packages that are not installed; run \`npm install ${[...missing].join(" ")}\`.`,
  );
}
