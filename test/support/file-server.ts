/** A server of files that answers ranges, as any static one does. */
import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";

export interface FileServer {
  /** The address of the folder, with a slash at its end. */
  readonly address: string;
  /** Bytes of each file that were sent, by its path in the folder. */
  readonly sent: ReadonlyMap<string, number>;
  close(): Promise<void>;
}

/** Serves the files of a folder on a loopback address. */
export async function serveFiles(folder: string): Promise<FileServer> {
  const sent = new Map<string, number>();
  const server = createServer((request, response) => {
    const file = decodeURIComponent(request.url!.slice(1));
    const target = path.join(folder, file);
    if (!statSync(target, { throwIfNoEntry: false })?.isFile()) {
      response.writeHead(404).end();
      return;
    }
    const content = readFileSync(target);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const part = first === undefined ? content : content.subarray(Number(first), Number(last) + 1);
    response.writeHead(first === undefined ? 200 : 206, {
      "content-length": part.length,
      ...(first !== undefined && { "content-range": `bytes ${first}-${last}/${content.length}` }),
    });
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    sent.set(file, (sent.get(file) ?? 0) + part.length);
    response.end(part);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}/`,
    sent,
    close: () => new Promise((resolve) => void server.close(() => resolve())),
  };
}
