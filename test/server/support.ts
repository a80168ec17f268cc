/** A running server for tests, and requests to it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ServerOptions, startServer } from "../../src/server/server.ts";
import type { Job, JobEvent } from "../../src/server/wire.ts";

export interface TestServer {
  readonly url: string;
  readonly output: string;
  /** What the operator was told. */
  readonly logged: string[];
  post(path: string, body: unknown): Promise<Response>;
  /** The answer to GET, from JSON. */
  get<T>(path: string): Promise<T>;
  /** The events of a drawing until it is over. */
  events(id: string, lastEventId?: number): Promise<{ id: number; event: JobEvent<Job> }[]>;
  /** Waits until a drawing is over. */
  ended(id: string): Promise<Job>;
  /** @param keep whether the folder of jobs stays */
  close(keep?: boolean): Promise<void>;
}

export async function testServer(options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const output = options.output ?? (await mkdtemp(join(tmpdir(), "patchwise-served-")));
  const logged: string[] = [];
  const server = await startServer({
    models: ["emoji"],
    output,
    host: "127.0.0.1",
    port: 0,
    processes: 1,
    batch: 16,
    version: "test",
    log: (text) => logged.push(text),
    ...options,
  });
  const { url } = server;
  const events: TestServer["events"] = async (id, lastEventId) => {
    const headers = lastEventId === undefined ? {} : { "Last-Event-ID": String(lastEventId) };
    const text = await (await fetch(`${url}/api/jobs/${id}/events`, { headers })).text();
    return serverSentEvents(text).map((each) => ({
      id: Number(each["id"]),
      event: JSON.parse(each["data"]!) as JobEvent<Job>,
    }));
  };
  return {
    url,
    output,
    logged,
    post: (path, body) =>
      fetch(url + path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: typeof body === "string" ? body : JSON.stringify(body),
      }),
    get: async <T>(path: string) => (await (await fetch(url + path)).json()) as T,
    events,
    async ended(id) {
      const last = (await events(id)).at(-1)!.event;
      if (last.kind !== "job") throw new Error("The stream ended before the job.");
      return last.job;
    },
    async close(keep = false) {
      await server.close(0);
      if (!keep) await rm(output, { recursive: true, force: true });
    },
  };
}

export function serverSentEvents(text: string): Record<string, string>[] {
  return text
    .split("\n\n")
    .filter((block) => block.includes("data:"))
    .map((block) =>
      Object.fromEntries(
        block.split("\n").map((line) => {
          const at = line.indexOf(":");
          return [line.slice(0, at), line.slice(at + 1).trimStart()];
        }),
      ),
    );
}
