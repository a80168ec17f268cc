/** Locates files of npm packages that the user installs beside this one. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { UsageError } from "../../../engine/errors.ts";

/**
 * Locates files given as "package/file", first from the working directory and then from this package.
 *
 * @param purpose what needs them, as the subject of the error's sentence
 * @throws UsageError that names each package that is not installed
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
        // It may be installed at the next origin.
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
