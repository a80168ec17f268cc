/** The studio's page as files: everything that a browser loads, from the folders of the package. */
import { createReadStream } from "node:fs";
import { cp, readFile, stat } from "node:fs/promises";
import { dirname, extname, join, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { type Context, Hono } from "hono";
import { requirePackageFile } from "../engine/package-node.ts";
import { createFolder } from "../weights/sources/system-error-node.ts";

/** The folders of the page by their addresses. */
function folders(): readonly (readonly [prefix: string, folder: string])[] {
  return [
    ["/models/emoji/", requirePackageFile("models/emoji")],
    ["/models/words/", requirePackageFile("models/words")],
    ["/ort/", dirname(fileURLToPath(import.meta.resolve("onnxruntime-web/wasm")))],
    ["/", requirePackageFile("dist/studio")],
  ];
}

/** Files of ONNX Runtime that the page loads. */
const runtimeFiles = ["wasm", "webgpu"].flatMap((device) => {
  const build = device === "wasm" ? "" : ".asyncify";
  return [
    `ort.${device}.bundle.min.mjs`,
    `ort-wasm-simd-threaded${build}.mjs`,
    `ort-wasm-simd-threaded${build}.wasm`,
  ];
});

/** Writes the whole page to a folder, from which any static host can serve it. */
export async function writePage(out: string): Promise<void> {
  for (const [prefix, folder] of folders().toReversed()) {
    const target = join(out, prefix);
    await createFolder(target);
    if (prefix !== "/ort/") await cp(folder, target, { recursive: true });
    else for (const file of runtimeFiles) await cp(join(folder, file), join(target, file));
  }
}

const types: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
};

/** Wasm threads need an isolated page. */
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

/**
 * Routes of the page's files; other addresses are left to later routes.
 *
 * @param options.jobs whether the same server takes jobs; the page's first file says so, so that the page need not ask a static host
 * that has none
 */
export function pageRoutes({ jobs }: { readonly jobs: boolean }): Hono {
  const app = new Hono();
  app.get("*", async (c, next) => {
    const found = await fileOf(c.req.path).catch(() => undefined);
    if (!found) return next();
    for (const [name, value] of Object.entries(headers)) c.header(name, value);
    c.header("Content-Type", types[extname(found.file)] ?? "application/octet-stream");
    if (c.req.path === "/") return c.body(await firstFile(found.file, jobs));
    return sent(c, found);
  });
  return app;
}

async function firstFile(file: string, jobs: boolean): Promise<string> {
  const text = await readFile(file, "utf8");
  return jobs ? text.replace('name="patchwise-jobs" content="none"', jobsHere) : text;
}

const jobsHere = 'name="patchwise-jobs" content="here"';

interface Found {
  readonly file: string;
  readonly size: number;
  readonly modified: Date;
}

function sent(c: Context, { file, size, modified }: Found): Response {
  c.header("Content-Length", String(size));
  c.header("Last-Modified", modified.toUTCString());
  if (c.req.method === "HEAD") return c.body(null);
  return c.body(Readable.toWeb(createReadStream(file)) as ReadableStream);
}

/** The file of an address; undefined if there is none in its folder. */
async function fileOf(path: string): Promise<Found | undefined> {
  const asked = decodeURIComponent(path === "/" ? "/index.html" : path);
  const [prefix, folder] = folders().find(([each]) => asked.startsWith(each))!;
  const file = resolve(folder, asked.slice(prefix.length));
  if (!file.startsWith(resolve(folder) + sep)) return undefined;
  const found = await stat(file);
  return found.isFile() ? { file, size: found.size, modified: found.mtime } : undefined;
}
