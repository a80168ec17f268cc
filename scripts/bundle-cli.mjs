/**
 * Makes the built command line a few files instead of hundreds of modules, which Node would find and read one by one at
 * each start. Packages stay outside, and each command is a file of its own that is read when it is asked for.
 */
import { rm, rename } from "node:fs/promises";
import { build } from "esbuild";

const bundled = "dist/cli-bundled";
await build({
  entryPoints: ["dist/cli/main.js"],
  outdir: bundled,
  bundle: true,
  splitting: true,
  packages: "external",
  platform: "node",
  format: "esm",
  target: "node20.19",
});
await rm("dist/cli", { recursive: true });
await rename(bundled, "dist/cli");
