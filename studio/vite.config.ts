/** Builds the studio into dist/studio: a page that needs no server of its own, only files. */
import { createReadStream, statSync } from "node:fs";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const root = resolve(import.meta.dirname, "..");
const runtime = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web/wasm")));

/** Wasm threads need an isolated page. */
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/**
 * ONNX Runtime is no part of the page: it is loaded from the folder ort/ beside it, when the first picture is drawn. So the page
 * stays small, and says how large the runtime is before it loads it.
 */
function runtimeBeside(): Plugin {
  const files: Readonly<Record<string, string>> = {
    "onnxruntime-web/wasm": "ort.wasm.bundle.min.mjs",
    "onnxruntime-web/webgpu": "ort.webgpu.bundle.min.mjs",
  };
  return {
    name: "runtime-beside",
    enforce: "pre",
    apply: "build",
    resolveId: (source) =>
      files[source] ? { id: `../ort/${files[source]}`, external: "absolute" } : undefined,
  };
}

/** Serves the folders that lie beside the built page. */
function foldersBeside(): Plugin {
  const folders = { "/models/": join(root, "models"), "/ort/": runtime };
  const types: Readonly<Record<string, string>> = {
    ".wasm": "application/wasm",
    ".mjs": "text/javascript",
  };
  return {
    name: "folders-beside",
    configureServer({ middlewares }) {
      middlewares.use((request, response, next) => {
        const { pathname } = new URL(request.url ?? "/", "http://localhost");
        const found = Object.entries(folders).find(([prefix]) => pathname.startsWith(prefix));
        const file = found && join(found[1], pathname.slice(found[0].length));
        const size = file && statSync(file, { throwIfNoEntry: false })?.size;
        if (!file || size === undefined) {
          next();
          return;
        }
        response.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
        response.setHeader("Content-Length", size);
        if (request.method === "HEAD") response.end();
        else createReadStream(file).pipe(response);
      });
    },
  };
}

export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  plugins: [runtimeBeside(), foldersBeside()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: { outDir: join(root, "dist/studio"), emptyOutDir: true, target: "es2022" },
  worker: { format: "es", plugins: () => [runtimeBeside()] },
  server: { headers, host: "127.0.0.1" },
  preview: { headers },
});
