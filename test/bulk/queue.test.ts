/** Lines drawn by workers over a queue, which are killed, and whose server is restarted. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { pipelineDrawer } from "../../src/bulk/drawer.ts";
import { pictureFolder } from "../../src/bulk/folder.ts";
import { promptLines } from "../../src/bulk/lines.ts";
import { modelDigest } from "../../src/pipelines/open/model-digest-node.ts";
import { queueDrawer } from "../../src/bulk/queue/producer.ts";
import { drawLines } from "../../src/bulk/run.ts";
import { type LineTask, plannedLines } from "../../src/bulk/tasks.ts";
import { version } from "../../src/cli/version.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import type { Pipeline } from "../../src/pipelines/pipeline.ts";
import { openQueue } from "../../src/queue/connection-node.ts";
import { hasNats, type NatsServer, startNats } from "../support/nats.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { typescript } from "../support/typescript.ts";
import { writeTrained } from "../support/trained-folder.ts";

const root = path.resolve(import.meta.dirname, "../..");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-bulk-queue-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
const COUNT = 20;

describe.runIf(hasNats)("lines on a queue", () => {
  let server: NatsServer;
  let pipeline: Pipeline;
  let tasks: readonly LineTask[];
  const by = { model: "model", version };
  const workers = new Set<{ child: ChildProcess; said: () => string }>();

  beforeAll(async () => {
    await writeTrained(at("model"), tinyTextNetwork);
    await writeTrained(at("other"), { ...tinyTextNetwork, depth: 1 });
    server = await startNats();
    pipeline = await openPipeline(at("model"));
    const text = Array.from({ length: COUNT }, (_, seed) =>
      JSON.stringify({ prompt: "a red cat", seed, size: seed % 4 === 0 ? "16x8" : "8x8" }),
    );
    const lines = promptLines(text.join("\n"), "a.jsonl", { steps: 60 });
    ({ tasks } = plannedLines(lines, pipeline, by));
    mkdirSync(at("here"));
    const drawer = pipelineDrawer(pipeline, 8);
    await drawLines(tasks, drawer, pictureFolder(at("here")), { by });
  }, 240_000);
  afterEach(() => {
    for (const { child } of workers) child.kill("SIGKILL");
    workers.clear();
  });
  afterAll(async () => {
    await pipeline.dispose();
    await server.remove();
    rmSync(scratch, { recursive: true, force: true });
  });

  const startWorker = (model = "model") => {
    // Node itself, so that a kill reaches it.
    const command = [...typescript, path.join(root, "src/cli/main.ts")];
    const args = ["draw-worker", "--queue", server.url, "--model", at(model), "--batch", "3"];
    const child = spawn(process.execPath, [...command, ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr.on("data", (data: Buffer) => (said += data.toString()));
    const worker = { child, said: () => said };
    workers.add(worker);
    return worker;
  };

  it("are drawn once each and as they are drawn here, though workers are killed and the server is restarted", async () => {
    const other = startWorker("other");
    const killed = startWorker();
    startWorker();
    const queue = await openQueue(server.url);
    const digest = await modelDigest(at("model"), {});
    const about = { ...by, digest, pictures: COUNT };
    const drawer = await queueDrawer(queue, "job1", about);
    mkdirSync(at("there"));
    const moments: (() => void)[] = [
      () => void killed.child.kill("SIGKILL"),
      () => void server.stop("SIGKILL").then(() => server.start()),
    ];
    const run = await drawLines(tasks, drawer, pictureFolder(at("there")), {
      by,
      onProgress: ({ drawn }) => {
        if (drawn >= 2) moments.shift()?.();
      },
    });
    await drawer.close();
    expect(run).toMatchObject({ drawn: COUNT, failures: [] });
    expect(moments).toEqual([]);
    expect(readdirSync(at("there")).toSorted()).toEqual(readdirSync(at("here")).toSorted());
    for (const { file } of tasks)
      expect(readFileSync(at("there", file))).toEqual(readFileSync(at("here", file)));
    expect(other.said()).toMatch(
      /A job of 20 pictures needs "model", and this worker draws with "other", which takes no work of it; start a worker with the model of the job\./,
    );
    // Nothing is left on the queue.
    const { manager } = queue;
    expect((await manager.streams.info("patchwise-draw")).state.messages).toBe(0);
    expect((await manager.streams.info("patchwise-drawn")).state.messages).toBe(0);
    await queue.close();
  }, 240_000);

  it("are found by the next producer if one ends before they are collected", async () => {
    const queue = await openQueue(server.url);
    const about = { ...by, digest: await modelDigest(at("model"), {}), pictures: 3 };
    const first = await queueDrawer(queue, "job2", about);
    const some = tasks.slice(0, 3);
    for (const { line } of some) first.draw(line.request, by).catch(() => {});
    await expect
      .poll(async () => (await queue.manager.streams.info("patchwise-draw")).state.messages)
      .toBe(3);
    await first.close();
    startWorker();
    await expect
      .poll(async () => (await queue.manager.streams.info("patchwise-drawn")).state.messages, {
        timeout: 200_000,
        interval: 200,
      })
      .toBe(3);
    for (const { child } of workers) child.kill("SIGKILL");
    const second = await queueDrawer(queue, "job2", about);
    for (const { line, file } of some)
      expect(Buffer.from(await second.draw(line.request, by))).toEqual(
        readFileSync(at("here", file)),
      );
    await second.close();
    await queue.close();
  }, 240_000);
});
