import { cp } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

await build({
  // The worker's script lies beside the page's under this name.
  entryPoints: { main: "main.js", "ort-worker-wasm": "patchwise/engine/web/worker-wasm" },
  bundle: true,
  format: "esm",
  minify: true,
  outdir: "dist",
});
const wasm = "ort-wasm-simd-threaded.wasm";
await cp(fileURLToPath(import.meta.resolve(`onnxruntime-web/${wasm}`)), `dist/${wasm}`);
await cp("node_modules/patchwise/models/emoji", "dist/models/emoji", { recursive: true });
await cp("index.html", "dist/index.html");
