/** The version and description of this package, from package.json. */
import { readFileSync } from "node:fs";

export const { version, description } = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
) as { readonly version: string; readonly description: string };
