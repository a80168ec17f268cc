/** The server's own interface: jobs, their events, limits, crashes and restarts. */
import { execFileSync } from "node:child_process";
import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { settingNames } from "../../src/pipelines/settings.ts";
import type { ErrorBody, Job, ModelList } from "../../src/server/wire.ts";
import { testServer, type TestServer } from "./support.ts";

let server: TestServer;
beforeAll(async () => {
  server = await testServer({ limits: { queue: 4, body: 100_000 } });
});
afterAll(() => server.close());

async function submit(fields: object, to = server): Promise<Job> {
  const response = await to.post("/api/jobs", fields);
  const job = (await response.json()) as Job;
  expect(response.status).toBe(202);
  expect(response.headers.get("Location")).toBe(`/api/jobs/${job.id}`);
  return job;
}

describe("jobs", () => {
  it("are followed from acceptance to pictures, also from the middle", async () => {
    const { id } = await submit({ prompt: "a dog", steps: 4, seed: 5, previews: 1, count: 2 });
    const events = await server.events(id);
    expect(events.map(({ event }) => event.kind)).toEqual(
      expect.arrayContaining(["job", "progress"]),
    );
    const { event: last } = events.at(-1)!;
    expect(last).toMatchObject({ kind: "job", job: { state: "succeeded", step: 4, steps: 4 } });
    const job = await server.get<Job>(`/api/jobs/${id}`);
    expect(job.pictures.map(({ seed }) => seed)).toEqual([5, 6]);
    for (const { url } of job.pictures) {
      const picture = await fetch(server.url + url);
      expect(picture.headers.get("Content-Type")).toBe("image/png");
    }
    // Only what is behind the given number, which is the end.
    const ids = events.map((each) => each.id);
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    expect(await server.events(id, ids.at(-1)! - 1)).toHaveLength(1);
    const { jobs } = await server.get<{ jobs: Job[] }>("/api/jobs?limit=1");
    expect(jobs.map((each) => each.id)).toEqual([id]);
  });

  it("stop when they are cancelled, and the others go on", async () => {
    const long = await submit({ prompt: "a dog", steps: 1000 });
    const short = await submit({ prompt: "a cat", steps: 3 });
    expect((await server.ended(short.id)).state).toBe("succeeded");
    const cancelled = await fetch(`${server.url}/api/jobs/${long.id}`, { method: "DELETE" });
    expect(cancelled.status).toBe(202);
    const ended = await server.ended(long.id);
    expect(ended.state).toBe("cancelled");
    expect(ended.step).toBeLessThan(1000);
    const again = await fetch(`${server.url}/api/jobs/${long.id}`, { method: "DELETE" });
    expect(again.status).toBe(409);
  });

  it("are refused beyond the queue, with the time to wait", async () => {
    const jobs = await Promise.all(
      Array.from({ length: 4 }, () => submit({ prompt: "a dog", steps: 1000 })),
    );
    const refused = await server.post("/api/jobs", { prompt: "a dog" });
    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get("Retry-After"))).toBeGreaterThan(0);
    for (const { id } of jobs) {
      await fetch(`${server.url}/api/jobs/${id}`, { method: "DELETE" });
      expect((await server.ended(id)).state).toBe("cancelled");
    }
  });

  it("are drawn again when their process ends, and fail when it does so twice", async () => {
    const { id } = await submit({ prompt: "a dog", steps: 1000 });
    /** Waits for the first step of a drawing that began after a time, and returns when it began. */
    const started = async (after: number) => {
      for (;;) {
        const { state, step, started: at = 0 } = await server.get<Job>(`/api/jobs/${id}`);
        if (state === "running" && step > 0 && at > after) return at;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const killProcess = () => {
      const children = execFileSync("ps", [
        "-ww",
        "-o",
        "pid=,args=",
        "--ppid",
        String(process.pid),
      ]);
      const line = children
        .toString()
        .split("\n")
        .find((each) => each.includes("drawing-process"));
      process.kill(Number.parseInt(line!, 10), "SIGKILL");
    };
    const first = await started(0);
    killProcess();
    const other = await submit({ prompt: "a cat", steps: 2 });
    await started(first);
    killProcess();
    expect(await server.ended(id)).toMatchObject({
      state: "failed",
      error: expect.stringContaining("ended by itself (SIGKILL)") as string,
    });
    expect((await server.ended(other.id)).state).toBe("succeeded");
  }, 180_000);

  it("are refused with a sentence if they cannot be drawn", async () => {
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"></svg>';
    const cases: readonly (readonly [body: unknown, status: number, message: RegExp])[] = [
      ["{", 400, /not valid JSON/],
      [[], 400, /must be a JSON object/],
      [{ prompt: 5 }, 400, /prompt must be a text, got 5/],
      [{ prompt: "a", constructor: 1 }, 400, /no option "constructor"/],
      [{ prompt: "a", seed: -1 }, 400, /seed must be/],
      [{ prompt: "a", model: "constructor" }, 404, /no model "constructor"/],
      [{ prompt: "a", width: 72, height: 71 }, 400, /emoji cannot draw/],
      [{ prompt: "a", width: 1e9, height: 1e9 }, 400, /at most 4194304 pixels/],
      [{ prompt: "a", steps: 90_000 }, 400, /steps is 90000, but this server draws at most/],
      [{ prompt: "a", count: 17 }, 400, /count is 17, but this server draws at most 16/],
      [{ prompt: "x".repeat(5000) }, 400, /prompt has 5000 characters/],
      [{ prompt: "a", image: "?" }, 400, /image must be a picture file in base64/],
      [{ prompt: "a", image: "AAAA" }, 400, /image cannot be read as a picture/],
      [{ prompt: "a", image: btoa(svg) }, 400, /image cannot be read as a picture; give a PNG/],
      [{ prompt: "x".repeat(200_000) }, 413, /more than 100000 bytes/],
    ];
    for (const [body, status, message] of cases) {
      const response = await server.post("/api/jobs", body);
      const { error } = (await response.json()) as ErrorBody;
      expect([response.status, error.message]).toEqual([status, expect.stringMatching(message)]);
    }
    const form = await fetch(`${server.url}/api/jobs`, { method: "POST", body: "prompt=a" });
    expect(form.status).toBe(415);
  });

  it("are described by OpenAPI, with every setting", async () => {
    const document = await server.get<{
      components: { schemas: { JobRequest: { properties: object } } };
    }>("/openapi.json");
    const { properties } = document.components.schemas.JobRequest;
    expect(Object.keys(properties)).toEqual(
      expect.arrayContaining([...settingNames, "model", "loras", "previews", "outputFormat"]),
    );
    const { models } = await server.get<ModelList>("/api/models");
    expect(models[0]).toMatchObject({ name: "emoji", condition: "text", defaults: { steps: 20 } });
  });

  it("are counted, and whether requests may come is asked apart from life", async () => {
    expect(await server.get("/healthz")).toEqual({ status: "ok" });
    expect(await server.get("/readyz")).toEqual({ status: "ready" });
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const line of text.trim().split("\n")) {
      expect(line).toMatch(
        /^(?:# (?:HELP|TYPE) patchwise_\w+ .+|patchwise_\w+(?:\{[^}]*\})? [\d.e-]+)$/,
      );
    }
    expect(text).toContain('patchwise_jobs_ended_total{state="succeeded"}');
  });
});

describe("a server that ends", () => {
  it("answers those who wait on their connection before it closes it", async () => {
    const ending = await testServer();
    const requests = ["/v1/images/generations", "/sdapi/v1/txt2img"].map((path) =>
      ending.post(path, { prompt: "a dog", steps: 1000 }),
    );
    for (;;) {
      const { jobs } = await ending.get<{ jobs: Job[] }>("/api/jobs");
      if (jobs.filter(({ state, step }) => state === "running" && step > 0).length === 2) break;
    }
    await ending.close();
    for (const response of await Promise.all(requests)) {
      expect(response.status).toBe(500);
      const { error } = (await response.json()) as ErrorBody;
      expect(error.message).toBe("The server ended before it was drawn; send it again.");
    }
    expect(ending.logged).toEqual([]);
  });

  it("draws the jobs that it had accepted at its next start", async () => {
    const first = await testServer();
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push((await submit({ prompt: "a cat", steps: 2 }, first)).id);
    await first.close(true);
    const second = await testServer({ output: first.output });
    for (const id of ids) expect((await second.ended(id)).state).toBe("succeeded");
    const kept = (await readdir(second.output)).filter((name) => name !== ".lock");
    expect(kept.toSorted()).toEqual(ids.toSorted());
    await second.close();
  });
});
