/** A server whose folder is full, away or damaged while it runs. */
import { execFileSync, spawn } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it, vi } from "vitest";
import { jobView } from "../../src/server/job-view.ts";
import type { JobRecord } from "../../src/server/job-store.ts";
import type { ErrorBody, Job } from "../../src/server/wire.ts";
import { untilUnlocked } from "../../src/weights/sources/lock-node.ts";
import { testServer } from "./support.ts";

it("says that jobs cannot be kept while its folder is away, and goes on once it is back", async () => {
  const server = await testServer();
  const { id } = (await (await server.post("/api/jobs", { prompt: "a", steps: 1 })).json()) as Job;
  expect((await server.ended(id)).state).toBe("succeeded");
  await rm(server.output, { recursive: true });
  const refused = await server.post("/api/jobs", { prompt: "a", steps: 1 });
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get("Retry-After"))).toBeGreaterThan(0);
  const { error } = (await refused.json()) as ErrorBody;
  expect(error.message).toMatch(/^The server cannot keep the job in its folder: .*ENOENT/);
  const lost = await fetch(`${server.url}/api/jobs/${id}/pictures/0`);
  expect([lost.status, await lost.text()]).toEqual([
    404,
    expect.stringContaining("cannot be read from the server's folder") as string,
  ]);
  execFileSync("mkdir", [server.output]);
  const again = await server.post("/api/jobs", { prompt: "a", steps: 1 });
  expect((await server.ended(((await again.json()) as Job).id)).state).toBe("succeeded");
  // Nothing is left of the job that was refused.
  expect(await readdir(server.output)).toHaveLength(1);
  // What cannot be answered from the folder is no fault of the server's code, so no stack is logged.
  expect(server.logged.join()).not.toContain("    at ");
  await server.close();
});

it("does not log that a client went away in the middle of its body", async () => {
  const server = await testServer();
  const { port } = new URL(server.url);
  const client = connect(Number(port), "127.0.0.1");
  await once(client, "connect");
  client.write(
    `POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"prompt":`,
  );
  await sleep(100);
  client.destroy();
  await vi.waitFor(async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain('patchwise_http_requests_total{method="POST",status="400"} 1');
  });
  expect(server.logged).toEqual([]);
  await server.close();
});

it("finds pictures by whole numbers only", async () => {
  const server = await testServer();
  const { id } = (await (await server.post("/api/jobs", { prompt: "a", steps: 1 })).json()) as Job;
  await server.ended(id);
  for (const index of ["0x0", "%20", "-0", "1e-9", "0.0", "length", "%00"]) {
    expect((await fetch(`${server.url}/api/jobs/${id}/pictures/${index}`)).status).toBe(404);
  }
  await server.close();
});

it("counts the jobs before each of thousands without counting anew for each", () => {
  const open = Array.from({ length: 20_000 }, (_, i) => ({
    record: {
      id: String(i),
      kind: i % 2 === 0 ? "draw" : "train",
      state: i === 0 ? "running" : "queued",
      created: i,
      settings: { steps: 1 },
      pictures: [],
      samples: [],
      files: [],
    } as unknown as JobRecord,
    step: 0,
    steps: 1,
  }));
  const begin = process.cpuUsage();
  const positions = open.map((each) => jobView(each, open).position);
  const { user } = process.cpuUsage(begin);
  expect(positions[0]).toBeUndefined();
  expect(positions.slice(1, 5)).toEqual([0, 0, 1, 1]);
  expect(positions.at(-1)).toBe(9999);
  // Counted anew for each, they would take 4·10⁸ steps.
  expect(user / 1e6).toBeLessThan(1);
});

it("waits for a folder until the process that is at work in it has ended, or for a time", async () => {
  const folder = await mkdtemp(join(tmpdir(), "patchwise-locked-"));
  const holder = spawn("sleep", ["1.5"]);
  const lock = { pid: holder.pid, host: hostname(), since: new Date().toISOString() };
  await writeFile(join(folder, ".lock"), JSON.stringify(lock));
  await untilUnlocked(folder, 200);
  expect(holder.exitCode).toBeNull();
  await untilUnlocked(folder, 30_000);
  expect(holder.exitCode).toBe(0);
  await rm(folder, { recursive: true });
  // One that nobody has worked in is free at once.
  await untilUnlocked(folder, 30_000);
});
