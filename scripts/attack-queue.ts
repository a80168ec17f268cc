/**
 * Draws many prompts over a queue while its workers are killed and its server is restarted, and compares every picture with the one that
 * is drawn without a queue: node scripts/run.mjs scripts/attack-queue.ts [PICTURES [WORKERS [SECONDS BETWEEN KILLS]]]
 *
 * By default 500 pictures, 3 workers and 4 seconds. It needs nats-server.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { pipelineDrawer } from "../src/bulk/drawer.ts";
import { pictureFolder } from "../src/bulk/folder.ts";
import { promptLines } from "../src/bulk/lines.ts";
import { modelDigest } from "../src/pipelines/open/model-digest-node.ts";
import { queueDrawer } from "../src/bulk/queue/producer.ts";
import { drawLines } from "../src/bulk/run.ts";
import { plannedLines } from "../src/bulk/tasks.ts";
import { version } from "../src/cli/version.ts";
import { openPipeline } from "../src/pipelines/open/open-node.ts";
import { openQueue } from "../src/queue/connection-node.ts";
import { startNats } from "../test/support/nats.ts";
import { typescript } from "../test/support/typescript.ts";

const [pictures = 500, count = 3, seconds = 4] = process.argv.slice(2).map(Number);
const subjects = ["red heart", "blue house", "cat face", "a dog", "green tree", "sun", "rocket"];
// Node itself, so that a kill reaches it.
const command = [...typescript, "src/cli/main.ts", "draw-worker", "--batch", "8", "--queue"];

const out = mkdtempSync(path.join(tmpdir(), "patchwise-attack-"));
const server = await startNats();
const pipeline = await openPipeline("emoji");
const by = { model: pipeline.name, version };
const text = Array.from({ length: pictures }, (_, seed) =>
  JSON.stringify({ prompt: subjects[seed % subjects.length], seed, steps: 1 + (seed % 4) }),
);
const { tasks } = plannedLines(promptLines(text.join("\n"), "prompts.jsonl", {}), pipeline, by);

const workers: ChildProcess[] = [];
const startWorker = () =>
  workers.push(spawn(process.execPath, [...command, server.url], { stdio: "ignore" }));
for (let i = 0; i < count; i++) startWorker();
let kills = 0;
const killing = setInterval(() => {
  workers.shift()?.kill("SIGKILL");
  kills++;
  startWorker();
}, 1000 * seconds);

let restarted: Promise<void> | undefined;
const restart = async () => {
  await server.stop("SIGKILL");
  await server.start();
};
try {
  const queue = await openQueue(server.url, { log: (line) => console.log(line) });
  const digest = await modelDigest("emoji", {});
  const drawer = await queueDrawer(queue, "attack", { ...by, digest, pictures });
  mkdirSync(path.join(out, "queue"));
  const run = await drawLines(tasks, drawer, pictureFolder(path.join(out, "queue")), {
    by,
    onProgress: ({ drawn }) => {
      if (drawn * 3 > pictures) restarted ??= restart();
    },
  });
  await drawer.close();
  await queue.close();
  await restarted;
  clearInterval(killing);
  for (const worker of workers) worker.kill("SIGKILL");

  const files = readdirSync(path.join(out, "queue"));
  const alone = pipelineDrawer(pipeline, 1);
  let different = 0;
  for (const { line, file } of tasks) {
    const bytes = await alone.draw(line.request, by);
    if (!readFileSync(path.join(out, "queue", file)).equals(bytes)) different++;
  }
  await alone.close();
  const { drawn, failures } = run;
  const line = { pictures, files: files.length, drawn, failed: failures.length, different };
  console.log(JSON.stringify({ ...line, kills, restarts: 1, seconds: Math.round(run.seconds) }));
  if (files.length !== pictures || drawn !== pictures || different > 0) process.exitCode = 1;
} finally {
  clearInterval(killing);
  for (const worker of workers) worker.kill("SIGKILL");
  await server.remove();
  rmSync(out, { recursive: true, force: true });
}
