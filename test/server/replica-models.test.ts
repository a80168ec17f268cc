/** Servers that share a queue but not all of their models. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { modelDigest } from "../../src/pipelines/open/model-digest-node.ts";
import { openQueue } from "../../src/queue/connection-node.ts";
import { sharedModels } from "../../src/server/shared/models.ts";
import { workConsumer, workStream } from "../../src/server/shared/names.ts";
import type { ErrorBody, Job } from "../../src/server/wire.ts";
import { hasNats, type NatsServer, startNats } from "../support/nats.ts";
import { roundRobin } from "../support/replicas.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";
import { testServer, type TestServer } from "./support.ts";

describe.runIf(hasNats)("servers of a queue with different models", () => {
  let nats: NatsServer;
  let scratch: string;
  const folder = (...parts: string[]) => path.join(scratch, ...parts, "model");
  const open = new Set<TestServer>();
  const server = async (...models: string[]) => {
    const shared = { url: nats.url, lease: 2000 };
    const started = await testServer({ models: ["emoji", ...models], shared });
    open.add(started);
    return started;
  };
  const end = async (one: TestServer) => {
    open.delete(one);
    await one.close();
  };
  beforeAll(async () => {
    scratch = await mkdtemp(path.join(tmpdir(), "patchwise-models-"));
    for (const each of ["one", "two"]) await mkdir(path.join(scratch, each));
    await writeTrained(folder("one"), tinyTextNetwork);
    await writeTrained(folder("two"), { ...tinyTextNetwork, depth: 1 });
    nats = await startNats();
  });
  afterAll(async () => {
    await Promise.all([...open].map((each) => each.close()));
    await nats.remove();
    await rm(scratch, { recursive: true, force: true });
  });

  const fields = { model: "model", prompt: "a cat", seed: 3, size: "8x8", steps: 2 };
  const submit = async (to: TestServer, more: object = {}) => {
    const answer = await to.post("/api/jobs", { ...fields, ...more });
    expect(answer.status).toBe(202);
    return ((await answer.json()) as Job).id;
  };
  const picture = async (from: TestServer, id: string) => {
    const { pictures } = await from.get<Job>(`/api/jobs/${id}`);
    return Buffer.from(await (await fetch(from.url + pictures[0]!.url)).arrayBuffer());
  };

  it("draw jobs of a model where it is, and show them everywhere", async () => {
    const without = await server();
    const having = await server(folder("one"));
    const ports = [without, having].map(({ url }) => Number(new URL(url).port));
    const proxy = await roundRobin(() => ports);
    const send = () =>
      fetch(`${proxy.url}/api/jobs`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(fields),
      });
    const refused = await send();
    expect(refused.status).toBe(404);
    const { error } = (await refused.json()) as ErrorBody;
    expect(error.message).toBe('There is no model "model"; give one of emoji.');
    const accepted = await send();
    expect(accepted.status).toBe(202);
    const { id } = (await accepted.json()) as Job;
    expect(await without.ended(id)).toMatchObject({ state: "succeeded", model: "model" });
    expect(await picture(without, id)).toEqual(await picture(having, id));
    expect(without.logged).toEqual([]);
    proxy.close();
    // Nobody else takes it up while its server is away.
    const long = await submit(having, { steps: 1000, count: 16 });
    await expect
      .poll(async () => (await without.get<Job>(`/api/jobs/${long}`)).state)
      .toBe("running");
    await end(having);
    expect((await without.get<Job>(`/api/jobs/${long}`)).state).toBe("queued");
    const back = await server(folder("one"));
    await expect
      .poll(async () => (await without.get<Job>(`/api/jobs/${long}`)).state)
      .toBe("running");
    await fetch(`${without.url}/api/jobs/${long}`, { method: "DELETE" });
    expect((await without.ended(long)).state).toBe("cancelled");
    await end(without);
    await end(back);
  });

  const difference =
    '"model" has other weights or another config here than on the server that accepted the job; give all servers of the queue the same model, and send the job again.';

  it("draw a job with the weights of the server that accepted it", async () => {
    const [one, two] = await Promise.all([server(folder("one")), server(folder("two"))]);
    const ids = await Promise.all([one, two, one, two].map((each) => submit(each)));
    await Promise.all(ids.map(async (id) => expect((await one.ended(id)).state).toBe("succeeded")));
    const [first, second, third, fourth] = await Promise.all(ids.map((id) => picture(one, id)));
    expect(third!.equals(first!)).toBe(true);
    expect(fourth!.equals(second!)).toBe(true);
    expect(second!.equals(first!)).toBe(false);
    // While the one is away, the other leaves its job.
    const left = await submit(one, { steps: 1000, count: 16 });
    await end(one);
    await expect
      .poll(() => two.logged.filter((each) => each.includes(difference)), { timeout: 10_000 })
      .toHaveLength(1);
    expect((await two.get<Job>(`/api/jobs/${left}`)).state).toBe("queued");
    await end(two);
    // As if it had been left for a minute.
    const queue = await openQueue(nats.url);
    const consumer = await queue.jetstream.consumers.get(workStream, workConsumer("model"));
    for (let count = 0; count < 60;) {
      const message = await consumer.next({ expires: 2000 });
      if (message) count = message.info.deliveryCount;
      message?.nak();
    }
    // It waits on while a server that takes jobs, though it is busy, has the model; without any, it fails.
    const digest = await modelDigest(folder("one"), {});
    const busy = sharedModels(queue, new Map([["model", digest]]));
    const other = await server(folder("two"));
    await expect.poll(() => other.logged.join("\n"), { timeout: 10_000 }).toContain(difference);
    expect((await other.get<Job>(`/api/jobs/${left}`)).state).toBe("queued");
    busy.close();
    expect(await other.ended(left)).toMatchObject({ state: "failed", error: difference });
    await queue.close();
  }, 60_000);
});
