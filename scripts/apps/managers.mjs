/** Installs an application with the package managers that people use. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * @typedef {object} Installation
 * @property {string} folder the application
 * @property {string} tarball the packed package
 * @property {readonly string[]} packages what is installed beside it
 * @property {string} tools a folder for the package manager itself
 * @property {(command: string, args: readonly string[], cwd: string) => string} run
 */

/** What package managers ask of themselves is left out of the applications' folders. */
const quiet = ["--no-audit", "--no-fund"];

/** @type {Readonly<Record<"npm" | "pnpm" | "yarn", (app: Installation) => void>>} */
export const installed = {
  npm: ({ folder, tarball, packages, run }) => {
    run("npm", ["install", ...quiet, tarball, ...packages], folder);
  },
  /** Packages reach only what they declare: pnpm links each into a folder of its own. */
  pnpm: ({ folder, tarball, packages, tools, run }) => {
    mkdirSync(tools, { recursive: true });
    run("npm", ["install", ...quiet, "--prefix", tools, "pnpm@10"], tools);
    const pnpm = path.join(tools, "node_modules/pnpm/bin/pnpm.cjs");
    run(process.execPath, [pnpm, "add", `patchwise@file:${tarball}`, ...packages], folder);
  },
  /** Plug'n'Play: there is no node_modules, packages stay in archives but for those that say otherwise. */
  yarn: ({ folder, tarball, packages, tools, run }) => {
    mkdirSync(tools, { recursive: true });
    run("npm", ["install", ...quiet, "--prefix", tools, "@yarnpkg/cli-dist@4"], tools);
    writeFileSync(path.join(folder, "yarn.lock"), "");
    writeFileSync(
      path.join(folder, ".yarnrc.yml"),
      "nodeLinker: pnp\nenableTelemetry: false\nenableGlobalCache: false\nenableImmutableInstalls: false\n",
    );
    const yarn = path.join(tools, "node_modules/@yarnpkg/cli-dist/bin/yarn.js");
    run(process.execPath, [yarn, "add", `patchwise@file:${tarball}`, ...packages], folder);
  },
};
