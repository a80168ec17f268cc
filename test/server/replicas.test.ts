/** Servers that share a queue: each accepts and shows all jobs, and draws what another one was drawing that is gone. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ServerOptions } from "../../src/server/server.ts";
import type { ErrorBody, Job } from "../../src/server/wire.ts";
import { hasNats, type NatsServer, startNats } from "../support/nats.ts";
import { startReplica } from "../support/replicas.ts";
import { serverSentEvents, testServer, type TestServer } from "./support.ts";

const LEASE = 2000;
const QUEUE = 6;

describe.runIf(hasNats)("servers that share a queue", () => {
  let nats: NatsServer;
  let servers: [TestServer, TestServer];
  const replica = (options: Partial<ServerOptions> = {}) =>
    testServer({ shared: { url: nats.url, lease: LEASE }, limits: { queue: QUEUE }, ...options });
  beforeAll(async () => {
    nats = await startNats();
    servers = await Promise.all([replica(), replica()]);
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.close()));
    await nats.remove();
  });

  async function submit(server: TestServer, fields: object): Promise<Job> {
    const response = await server.post("/api/jobs", fields);
    expect(response.status).toBe(202);
    return (await response.json()) as Job;
  }

  it("show a job alike, wherever it was accepted, with the same events from any number on", async () => {
    const [first, second] = servers;
    const { id } = await submit(first, { prompt: "a dog", steps: 6, seed: 5, previews: 2 });
    const [here, there] = await Promise.all([first.events(id), second.events(id)]);
    expect(there.at(-1)!.event).toMatchObject({
      kind: "job",
      job: { state: "succeeded", step: 6 },
    });
    const steps = there.filter(({ event }) => event.kind === "progress");
    expect(steps).toHaveLength(6);
    // The one may have seen a preview that the next one has replaced since.
    const lasting = (events: typeof here) => events.filter(({ event }) => event.kind !== "preview");
    expect(lasting(here)).toEqual(lasting(there));
    const middle = steps[2]!.id;
    expect(lasting(await second.events(id, middle))).toEqual(
      lasting(there).filter((each) => each.id > middle),
    );
    expect(await second.events(id, there.at(-1)!.id)).toEqual([]);
    for (const number of [-5, 1.5, NaN, 1e9]) {
      expect(lasting(await second.events(id, number))).toEqual(lasting(there));
    }
    const bytes = await Promise.all(
      servers.map(async (server) => {
        const { pictures } = await server.get<Job>(`/api/jobs/${id}`);
        return Buffer.from(await (await fetch(server.url + pictures[0]!.url)).arrayBuffer());
      }),
    );
    expect(bytes[0]!.equals(bytes[1]!)).toBe(true);
    expect((await second.get<{ jobs: Job[] }>("/api/jobs")).jobs[0]!.id).toBe(id);
  });

  it("cancel each other's jobs, and refuse those beyond the queue", async () => {
    const [first, second] = servers;
    const jobs = await Promise.all(
      Array.from({ length: QUEUE }, (_, i) =>
        submit(servers[i % 2]!, { prompt: "a cat", steps: 1000, count: 16 }),
      ),
    );
    for (const server of servers) {
      const refused = await server.post("/api/jobs", { prompt: "a dog" });
      expect(refused.status).toBe(429);
      expect(Number(refused.headers.get("Retry-After"))).toBeGreaterThan(0);
    }
    const metrics = await (await fetch(`${second.url}/metrics`)).text();
    const inState = (state: string) =>
      Number(new RegExp(`patchwise_jobs\\{state="${state}"\\} (\\d+)`).exec(metrics)![1]);
    expect(inState("queued") + inState("running")).toBe(QUEUE);
    for (const { id } of jobs) {
      const answer = await fetch(`${second.url}/api/jobs/${id}`, { method: "DELETE" });
      expect(answer.status).toBe(202);
    }
    for (const { id } of jobs) expect((await first.ended(id)).state).toBe("cancelled");
    expect(await submit(first, { prompt: "a dog", steps: 1 })).toMatchObject({ kind: "draw" });
  });

  it("go on with the jobs and events of one that is killed, and answer 503 while the queue is away", async () => {
    const [first, second] = servers;
    const folder = await mkdtemp(join(tmpdir(), "patchwise-killed-"));
    const killed = await startReplica("src/cli/main.ts", nats.url, folder, ["--lease", "2"]);
    const jobs: Job[] = [];
    for (let i = 0; i < QUEUE; i++) {
      const answer = await fetch(`${killed.url}/api/jobs`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ prompt: "a cat", steps: 60, seed: i }),
      });
      expect(answer.status).toBe(202);
      jobs.push((await answer.json()) as Job);
    }
    // Some of them are drawn by the one that is killed.
    const own = () => first.get<Job>(`/api/jobs/${jobs[0]!.id}`);
    while ((await own()).state === "queued")
      await new Promise((resolve) => setTimeout(resolve, 20));
    await killed.end("SIGKILL");
    const followed = await Promise.all(
      jobs.map(({ id }) => fetch(`${first.url}/api/jobs/${id}/events`)),
    );
    await nats.stop("SIGKILL");
    const refused = await second.post("/api/jobs", { prompt: "a dog" });
    expect(refused.status).toBe(503);
    const { error } = (await refused.json()) as ErrorBody;
    expect(error.message).toBe(
      `The queue at ${nats.url} cannot be reached now; try again in a few seconds.`,
    );
    expect((await fetch(`${second.url}/readyz`)).status).toBe(503);
    expect((await fetch(`${second.url}/healthz`)).status).toBe(200);
    await nats.start();
    for (const stream of followed) {
      const last = serverSentEvents(await stream.text()).at(-1)!;
      expect(JSON.parse(last["data"]!)).toMatchObject({ kind: "job", job: { state: "succeeded" } });
    }
    for (const { id } of jobs) {
      const events = await second.events(id);
      const over = events.filter(
        ({ event }) => event.kind === "job" && event.job.state === "succeeded",
      );
      expect(over).toHaveLength(1);
    }
    await rm(folder, { recursive: true, force: true });
  });

  it.each([
    ["nats://127.0.0.1:1", "cannot be reached"],
    ["http://127.0.0.1", "is not the address of a NATS server"],
  ])("do not start with the queue %s", async (url, message) => {
    await expect(replica({ shared: { url, lease: LEASE } })).rejects.toThrow(message);
  });

  it("do not start with another lease, or in the folder of a server without a queue", async () => {
    await expect(replica({ shared: { url: nats.url, lease: 5000 } })).rejects.toThrow(
      "have a lease of 2 s, and this one 5 s; give --lease 2.",
    );
    // Its process ends, too.
    const folder = await mkdtemp(join(tmpdir(), "patchwise-lease-"));
    await expect(
      startReplica("src/cli/main.ts", nats.url, folder, ["--lease", "5"]),
    ).rejects.toThrow("have a lease of 2 s, and this one 5 s; give --lease 2.");
    await rm(folder, { recursive: true, force: true });
    const local = await testServer();
    await local.post("/api/jobs", { prompt: "a dog", steps: 1 });
    await local.close(true);
    await expect(replica({ output: local.output })).rejects.toThrow(
      "has jobs of a server without --queue",
    );
    await rm(local.output, { recursive: true, force: true });
  });
});
