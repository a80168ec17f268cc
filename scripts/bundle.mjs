/**
 * Bundles dist/web/, which pages use without a bundler of their own: patchwise.js, the scripts of its workers, and the two builds of
 * ONNX Runtime, each a file of its own because its threads load the file again. `npm run build` runs this after the compiler.
 */
import { copyFile, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const dist = path.resolve(import.meta.dirname, "../dist");
const web = path.join(dist, "web");
const devices = ["wasm", "webgpu"];

await mkdir(web, { recursive: true });
for (const device of devices) {
  const runtime = fileURLToPath(import.meta.resolve(`onnxruntime-web/${device}`));
  await copyFile(runtime, path.join(web, `ort-${device}.js`));
}

/** @type {import("esbuild").Plugin} */
const runtimesBeside = {
  name: "runtimes-beside",
  setup(bundling) {
    bundling.onResolve({ filter: /^onnxruntime-web\// }, ({ path: name }) => ({
      path: `./ort-${path.basename(name)}.js`,
      external: true,
    }));
  },
};
/**
 * The worker of patchwise/web, which is bundled under another name, since worker.js is the module for those who bundle themselves.
 *
 * @type {import("esbuild").Plugin}
 */
const bundledWorker = {
  name: "bundled-worker",
  setup(bundling) {
    bundling.onLoad({ filter: /[\\/]web[\\/]client\.js$/ }, async ({ path: file }) => {
      const text = await readFile(file, "utf8");
      const contents = text.replace('"./worker.js"', '"./patchwise-worker.js"');
      if (contents === text) throw new Error(`${file} no longer starts ./worker.js.`);
      return { contents, loader: "js" };
    });
  },
};
/** What a page needs: everything that does not need Node, apart from the parts that networks are written with. */
const entries = ["pipelines", "pictures", "training", "web"].map((folder) => `${folder}/index.js`);
const page = ["index.js", ...entries, "engine/index-web.js"].map(
  (file) => `export * from "./${file}";`,
);
/** @type {import("esbuild").BuildOptions} */
const options = {
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  minify: true,
  plugins: [runtimesBeside, bundledWorker],
  logLevel: "warning",
};
await build({
  ...options,
  stdin: { contents: page.join("\n"), resolveDir: dist, sourcefile: "patchwise.js" },
  outfile: path.join(web, "patchwise.js"),
});
await build({
  ...options,
  entryPoints: [path.join(web, "worker.js")],
  outfile: path.join(web, "patchwise-worker.js"),
});
await build({
  ...options,
  entryPoints: devices.map((device) => path.join(dist, `engine/runtime/ort-worker-${device}.js`)),
  outdir: web,
});
