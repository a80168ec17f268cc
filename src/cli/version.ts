/** The version and description of this package, from package.json. */
import { readFileSync } from "node:fs";
import { packageFile } from "../engine/package-node.ts";

export const { version, description } = JSON.parse(
  readFileSync(packageFile("package.json"), "utf8"),
) as { readonly version: string; readonly description: string };
