/** patchwise studio: serves the studio, a page that draws, looks inside the model and trains, on this machine. */
import { createReadStream } from "node:fs";
import { cp, mkdir, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { dirname, extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { requirePackageFile } from "../engine/package-node.ts";
import { UsageError } from "../engine/errors.ts";
import { numberOption } from "./options.ts";
import { writeLine } from "./terminal.ts";

const usualPort = 8188;

export function addStudio(program: Command): void {
  program
    .command("studio")
    .summary("open a page that draws, looks inside the model and trains")
    .description(
      "Serves the studio on this machine: a page that draws with the bundled model, shows what it attends to, compares settings, " +
        "and trains a small model on pictures, all in the browser. With --write it is written to a folder for any static host.",
    )
    .option("--port <n>", `port on 127.0.0.1 (default: ${usualPort})`, numberOption("--port"))
    .option("--write <dir>", "write the whole page to a folder, in place of serving it")
    .action(studio);
}

interface StudioOptions {
  readonly port?: number;
  readonly write?: string;
}

async function studio({ port = usualPort, write }: StudioOptions): Promise<void> {
  if (write !== undefined) {
    await writeStudio(write);
    return;
  }
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new UsageError(`--port must be a whole number from 0 to 65535, got ${port}.`);
  }
  const server = studioServer();
  await new Promise<void>((opened, failed) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      failed(
        error.code === "EADDRINUSE"
          ? new UsageError(`Port ${port} is in use; give another with --port, such as ${port + 1}.`)
          : error,
      ),
    );
    server.listen(port, "127.0.0.1", opened);
  });
  const address = server.address();
  const used = typeof address === "object" && address ? address.port : port;
  writeLine(process.stdout, `The studio is at http://127.0.0.1:${used}/ until Ctrl-C.`);
}

/** A server of the page, its models and ONNX Runtime, which listens nowhere yet. */
export function studioServer(): Server {
  return createServer((request, response) => void answer(request, response));
}

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

async function writeStudio(out: string): Promise<void> {
  for (const [prefix, folder] of folders().toReversed()) {
    const target = join(out, prefix);
    await mkdir(target, { recursive: true });
    if (prefix !== "/ort/") await cp(folder, target, { recursive: true });
    else for (const file of runtimeFiles) await cp(join(folder, file), join(target, file));
  }
  writeLine(process.stdout, `Wrote the studio to ${out}; any static host can serve it.`);
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

async function answer(
  { method, url = "/" }: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const found = await fileOf(url).catch(() => undefined);
  if (!found || (method !== "GET" && method !== "HEAD")) {
    response.writeHead(found ? 405 : 404, headers).end();
    return;
  }
  response.writeHead(200, {
    ...headers,
    "Content-Type": types[extname(found.file)] ?? "application/octet-stream",
    "Content-Length": found.size,
    "Last-Modified": found.modified.toUTCString(),
  });
  if (method === "HEAD") response.end();
  else
    createReadStream(found.file)
      .on("error", () => response.destroy())
      .pipe(response);
}

/** The file of an address; undefined if there is none in its folder. */
async function fileOf(
  url: string,
): Promise<{ readonly file: string; readonly size: number; readonly modified: Date } | undefined> {
  const { pathname } = new URL(url, "http://localhost");
  const asked = decodeURIComponent(pathname === "/" ? "/index.html" : pathname);
  const [prefix, folder] = folders().find(([each]) => asked.startsWith(each))!;
  const file = resolve(folder, asked.slice(prefix.length));
  if (!file.startsWith(resolve(folder) + sep)) return undefined;
  const found = await stat(file);
  return found.isFile() ? { file, size: found.size, modified: found.mtime } : undefined;
}
