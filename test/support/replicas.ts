/** Servers of one queue as processes of their own, and a proxy that gives them requests in turn. */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, request, type Server } from "node:http";
import { setTimeout } from "node:timers/promises";
import { freePort } from "./nats.ts";

export interface ReplicaProcess {
  readonly port: number;
  readonly url: string;
  /** What it wrote to stderr. */
  readonly said: string[];
  /** Ends it; resolves with its exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Runs `patchwise serve --queue` until it is ready. @param main the command's file, in src/ or dist/ */
export async function startReplica(
  main: string,
  queue: string,
  output: string,
  options: readonly string[] = [],
): Promise<ReplicaProcess> {
  const port = await freePort();
  const place = ["--port", String(port), "--output", output, "--queue", queue];
  // Without a channel of its own, it does not hear of the end of this process.
  const child = spawn(process.execPath, [...loader, main, "serve", ...place, ...options], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const said: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text: string) => said.push(text));
  const url = `http://127.0.0.1:${port}`;
  while (!(await isReady(url))) {
    if (child.exitCode !== null) throw new Error(`A server does not start: ${said.join("")}`);
    await setTimeout(50);
  }
  return { port, url, said, end: (signal) => ended(child, signal) };
}

/** Node before 22.18 does not strip types by itself. */
const hooks = new URL("../../scripts/typescript-hooks.mjs", import.meta.url).href;
const register = `data:text/javascript,import{register}from"node:module";register(${JSON.stringify(hooks)})`;
const loader =
  "typescript" in process.features && process.features.typescript ? [] : ["--import", register];

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(`${url}/readyz`).catch(() => undefined);
  return response?.ok ?? false;
}

function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => {
    child.once("exit", resolve);
    child.kill(signal);
  });
}

export interface Proxy {
  readonly url: string;
  close(): void;
}

/** Gives each request to the next server that answers; the connection of one that is gone ends. */
export async function roundRobin(ports: () => readonly number[]): Promise<Proxy> {
  let turn = 0;
  const server: Server = createServer((asked, answer) => {
    const chunks: Buffer[] = [];
    asked.on("data", (chunk: Buffer) => chunks.push(chunk));
    asked.on("end", () => {
      const all = ports();
      const first = turn++;
      const attempt = (i: number) => {
        const { method, url: path, headers } = asked;
        const port = all[(first + i) % all.length];
        const to = request({ host: "127.0.0.1", port, method, path, headers }, (from) => {
          answer.writeHead(from.statusCode!, from.headers);
          from.on("error", () => answer.destroy());
          from.pipe(answer);
        });
        // A server that is not there is passed over; one that dies in the middle of an answer ends it.
        to.on("error", (error: NodeJS.ErrnoException) => {
          const isAbsent = error.code === "ECONNREFUSED" && i + 1 < all.length;
          if (isAbsent) attempt(i + 1);
          else answer.destroy();
        });
        answer.on("close", () => to.destroy());
        to.end(Buffer.concat(chunks));
      };
      attempt(0);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
