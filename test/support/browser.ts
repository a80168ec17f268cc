/**
 * Opens a page with this repository's code in headless Chromium and calls its exports from a test. All files
 * come from a server on 127.0.0.1.
 */
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { ensureChromium } from "../../scripts/find-chromium.mjs";

/** Exports of a page's entry module that a test may call: arguments and results are plain data. */
type PageModule = Record<string, (...args: never[]) => unknown>;

export interface BrowserPage<M extends PageModule> {
  /** Calls an export inside the page and returns its result; its errors are thrown here. */
  call<K extends keyof M & string>(
    name: K,
    ...args: Parameters<M[K]>
  ): Promise<Awaited<ReturnType<M[K]>>>;
  /** Closes the browser and the server. */
  close(): Promise<void>;
}

export const chromiumFlags = [
  // Gives a WebGPU adapter (SwiftShader) on machines without a GPU.
  "--enable-unsafe-webgpu",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The time limit of a call in ms: less than that of a test, so that the test can name the call. */
const PATIENCE = 110_000;

/** Required for wasm threads: without isolation the page has no SharedArrayBuffer. */
const isolation = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

const html = `<!doctype html><meta charset="utf-8"><title>test</title><script type="module">
  import * as page from "/page.js";
  globalThis.page = page;
</script>`;

const contentTypes: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/**
 * Bundles a module and opens it in a browser of its own.
 *
 * @param entry path of the module
 * @param workers further modules that the page starts as workers: URL path → path of the module
 * @param folders further files that the page loads: URL path with a trailing slash → folder
 */
export async function openPage<M extends PageModule>(
  entry: string,
  workers: Readonly<Record<string, string>> = {},
  folders: Readonly<Record<string, string>> = {},
): Promise<BrowserPage<M>> {
  const scripts = new Map(
    await Promise.all(
      Object.entries({ "/page.js": entry, ...workers }).map(
        async ([url, file]) => [url, await bundle(file)] as const,
      ),
    ),
  );
  const server = await serve(scripts, folders);
  const { port } = server.address() as AddressInfo;
  const browser = await chromium.launch({ executablePath: ensureChromium(), args: chromiumFlags });
  const close = async () => {
    await browser.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  try {
    const page = await browser.newPage();
    const failures: string[] = [];
    page.on("pageerror", (error) => failures.push(error.message));
    page.on("crash", () => failures.push("the page crashed"));
    await page.goto(`http://127.0.0.1:${port}/`);
    await page.waitForFunction(() => "page" in globalThis || document.readyState === "complete");
    if (failures.length > 0) throw new Error(`${entry} does not load: ${failures.join("; ")}`);
    let silent: string | undefined;
    const answer = (name: string, args: readonly unknown[]) =>
      page.evaluate(
        ([key, values]) => {
          const exports = (globalThis as unknown as { page: PageModule }).page;
          return exports[key]!(...(values as never[]));
        },
        [name, args] as const,
      );
    return {
      async call(name, ...args) {
        // Without this, every later call to a page that hangs would wait for the time limit, too.
        if (silent !== undefined) throw new Error(silent);
        let timer: NodeJS.Timeout | undefined;
        const waited = new Promise<never>((_, reject) => {
          timer = setTimeout(() => {
            silent = `The page no longer answers since ${name}(${JSON.stringify(args)}).`;
            reject(new Error(silent));
          }, PATIENCE);
        });
        try {
          return (await Promise.race([answer(name, args), waited])) as never;
        } finally {
          clearTimeout(timer);
        }
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function bundle(entry: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    sourcemap: "inline",
    logLevel: "silent",
  });
  return outputFiles[0]!.text;
}

/** Serves the page, its scripts, and ONNX Runtime's own files under /ort/. */
async function serve(
  scripts: ReadonlyMap<string, string>,
  folders: Readonly<Record<string, string>>,
): Promise<Server> {
  const ort = path.dirname(createRequire(import.meta.url).resolve("onnxruntime-web/webgpu"));
  const find = async (url: string): Promise<string | Buffer | undefined> => {
    if (url === "/") return html;
    const script = scripts.get(url);
    if (script !== undefined) return script;
    for (const [prefix, folder] of Object.entries({ ...folders, "/ort/": ort })) {
      if (url.startsWith(prefix)) return readFile(path.join(folder, url.slice(prefix.length)));
    }
    return undefined;
  };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://127.0.0.1");
    find(pathname)
      .catch(() => undefined)
      .then((body) => {
        const type = contentTypes[path.extname(pathname) || ".html"] ?? "application/octet-stream";
        const headers = { ...isolation, "Content-Type": type };
        const bytes = Buffer.from(body ?? "");
        const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        const part = first === undefined ? bytes : bytes.subarray(Number(first), Number(last) + 1);
        const status = body === undefined ? 404 : first === undefined ? 200 : 206;
        response.writeHead(status, {
          ...headers,
          "Content-Length": part.length,
          ...(status === 206 && { "Content-Range": `bytes ${first}-${last}/${bytes.length}` }),
        });
        response.end(part);
      }, console.error);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
