/** Trainings over HTTP, from their pictures to drawings with their model. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { toPng } from "../../src/pictures/png.ts";
import type { ErrorBody, JobEvent, TrainingJob } from "../../src/server/wire.ts";
import { serverSentEvents, testServer, type TestServer } from "./support.ts";

vi.setConfig({ testTimeout: 120_000 });

let server: TestServer;
let pictures: { image: string; caption: string }[];

beforeAll(async () => {
  server = await testServer({ limits: { queue: 4 } });
  pictures = await Promise.all(
    [0, 1, 2, 3].map(async (i) => {
      const pixels = new Uint8Array(8 * 8 * 3).fill(60 * i);
      const png = await toPng({ width: 8, height: 8, channels: 3, pixels });
      return { image: Buffer.from(png).toString("base64"), caption: i < 2 ? "dark" : "light" };
    }),
  );
});
afterAll(() => server.close());

const config = {
  picture: { size: 8 },
  model: { patch: 4, hidden: 16, depth: 1, heads: 1, prompt: { length: 4, depth: 1 } },
  training: { steps: 6, batch: 2, warmUp: 1, ema: 0.9 },
  sampling: { steps: 2 },
  samples: { steps: 3, each: 1, of: ["dark", "light"] },
};
const request = (name: string, more: object = {}) => ({
  kind: "train",
  name,
  pictures,
  config: { ...config, ...more },
});

async function submit(name: string, more: object = {}): Promise<TrainingJob> {
  const response = await server.post("/api/jobs", request(name, more));
  expect(response.status).toBe(202);
  return (await response.json()) as TrainingJob;
}

const jobOf = (id: string) => server.get<TrainingJob>(`/api/jobs/${id}`);

async function followed(id: string): Promise<JobEvent<TrainingJob>[]> {
  const text = await (await fetch(`${server.url}/api/jobs/${id}/events`)).text();
  return serverSentEvents(text).map((each) => JSON.parse(each["data"]!) as JobEvent<TrainingJob>);
}

const until = async (id: string, what: (job: TrainingJob) => boolean): Promise<TrainingJob> => {
  for (;;) {
    const job = await jobOf(id);
    if (what(job)) return job;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
const ask = async (id: string, what: string) =>
  (await server.post(`/api/jobs/${id}/${what}`, {})).status;

describe("a training over HTTP", () => {
  it("tells its losses and samples, and its model is drawn with afterwards", async () => {
    const { id } = await submit("tones");
    const events = await followed(id);
    const losses = events.flatMap((each) => (each.kind === "progress" ? [each.loss] : []));
    expect(losses).toHaveLength(6);
    expect(losses.every((loss) => loss! > 0)).toBe(true);
    const job = await jobOf(id);
    expect(job).toMatchObject({ state: "succeeded", step: 6, steps: 6, pictures: 4 });
    expect(job.samples.map(({ step, of }) => [step, of])).toEqual([
      [3, ["dark", "light"]],
      [6, ["dark", "light"]],
    ]);
    for (const path of [
      ...job.samples.flatMap(({ urls }) => urls),
      ...job.files.map(({ url }) => url),
    ]) {
      expect((await fetch(server.url + path)).status).toBe(200);
    }
    expect(job.files.map(({ name }) => name)).toContain("model.safetensors");
    const drawing = await server.post("/api/jobs", { model: "tones", prompt: "dark", seed: 1 });
    const { id: drawn } = (await drawing.json()) as { id: string };
    expect((await server.ended(drawn)).state).toBe("succeeded");
    // Names are taken, and removing a training frees its name and its folder.
    expect((await server.post("/api/jobs", request("tones"))).status).toBe(409);
    await fetch(`${server.url}/api/jobs/${id}`, { method: "DELETE" });
    expect((await fetch(`${server.url}/api/jobs/${id}`)).status).toBe(404);
    expect(await readdir(server.output)).not.toContain(id);
    expect((await server.post("/api/jobs", { model: "tones", prompt: "a" })).status).toBe(404);
  });

  it("is paused, resumed, sampled and cancelled, and goes on after the server has ended", async () => {
    const long = { training: { ...config.training, steps: 50_000 }, samples: { grids: 0 } };
    const { id } = await submit("long", long);
    await until(id, ({ step }) => step > 2);
    expect(await ask(id, "sample")).toBe(202);
    await until(id, ({ samples }) => samples.length > 0);
    expect(await ask(id, "pause")).toBe(202);
    const paused = await until(id, ({ state }) => state === "paused");
    expect(await ask(id, "sample")).toBe(409);
    await server.close(true);
    server = await testServer({ output: server.output });
    expect(await jobOf(id)).toMatchObject({ state: "paused" });
    expect(await ask(id, "resume")).toBe(202);
    const resumed = await until(id, ({ step }) => step > paused.step);
    expect(resumed.state).toBe("running");
    await fetch(`${server.url}/api/jobs/${id}`, { method: "DELETE" });
    expect((await followed(id)).at(-1)).toMatchObject({ job: { state: "cancelled" } });
  });

  it("is refused with a sentence that names the field", async () => {
    const cases: readonly (readonly [body: object, message: RegExp])[] = [
      [request("../evil"), /name is not as expected/],
      [{ ...request("a"), pictures: [] }, /pictures/],
      [{ ...request("a"), pictures: [{ image: "AAAA" }] }, /pictures.0.image cannot be read/],
      [request("a", { training: { batch: 2 } }), /one of steps, minutes and compute/],
      [request("a", { training: { minutes: 1 } }), /steps is missing/],
      [request("a", { training: { steps: 1e9, batch: 2 } }), /takes at most 100000/],
      [request("a", { training: { ...config.training, from: "/etc" } }), /names files/],
      [request("a", { model: { prompt: { words: "/etc" } } }), /names files/],
      [request("a", { data: { kind: "images", path: "/etc" } }), /data/],
      [request("a", { picture: { size: 4096 } }), /picture.size/],
      [request("a", { model: { hiden: 3 } }), /hiden/],
      [{ ...request("a"), kind: "paint" }, /kind must be draw or train/],
    ];
    for (const [body, message] of cases) {
      const response = await server.post("/api/jobs", body);
      const { error } = (await response.json()) as ErrorBody;
      expect([response.status, error.message]).toEqual([400, expect.stringMatching(message)]);
    }
    // Nothing is left of them.
    const kept = await readdir(server.output);
    for (const name of kept.filter((each) => each !== ".lock")) {
      expect(await readdir(join(server.output, name))).toContain("job.json");
    }
  });
});
