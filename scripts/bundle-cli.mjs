/**
 * Makes the built command line a few files instead of hundreds of modules, which Node would find and read one by one at
 * each start. Each command is a file of its own that is read when it is asked for. Packages that every command needs are in these
 * files too, with their licences beside them; those that bring files of their own, or that few commands need, stay outside.
 */
import { readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const inside = ["@bufbuild/protobuf", "@huggingface/tokenizers", "commander", "yaml", "zod"];
const { dependencies, peerDependencies } = JSON.parse(await readFile("package.json", "utf8"));
const bundled = "dist/cli-bundled";
await build({
  entryPoints: ["dist/cli/main.js"],
  outdir: bundled,
  bundle: true,
  splitting: true,
  external: Object.keys({ ...dependencies, ...peerDependencies }).filter(
    (name) => !inside.includes(name),
  ),
  platform: "node",
  format: "esm",
  target: "node20.19",
  // Packages in CommonJS ask for Node's modules by `require`, which modules do not have.
  banner: {
    js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);',
  },
});
await writeFile(`${bundled}/LICENSES.txt`, (await Promise.all(inside.map(licence))).join("\n"));
await rm("dist/cli", { recursive: true });
await rename(bundled, "dist/cli");

/**
 * The licence of a package, under its name.
 *
 * @param {string} name
 */
async function licence(name) {
  const folder = `node_modules/${name}`;
  const file = (await readdir(folder)).find((each) => /^licen[cs]e/i.test(each));
  const { license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
  const text = file ? await readFile(`${folder}/${file}`, "utf8") : `Licence: ${license}\n`;
  return `== ${name}\n\n${text}`;
}
