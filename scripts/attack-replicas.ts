/**
 * Attacks servers that share a queue: node scripts/run.mjs scripts/attack-replicas.ts [--kills 20] [--restarts 2] [--built]
 *
 * Two `patchwise serve` stand behind a proxy that gives them requests in turn. Clients send drawings and follow them by Last-Event-ID over
 * connections that break with the servers, one of which is killed at random moments and started again; now and then one is ended by
 * SIGTERM instead, or the queue itself is killed and started again. At the end every job that was accepted must have succeeded, once,
 * and what each client heard must be the events of the stream, in order, without a gap and none twice. With --built the servers are
 * those of dist/.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { ErrorBody, Job, JobEvent } from "../src/server/wire.ts";
import { hasNats, startNats } from "../test/support/nats.ts";
import { type ReplicaProcess, roundRobin, startReplica } from "../test/support/replicas.ts";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "20" },
    restarts: { type: "string", default: "2" },
    built: { type: "boolean", default: false },
  },
});
const kills = Number(values.kills);
const restarts = Number(values.restarts);
if (!hasNats) throw new Error("There is no nats-server here; install it first.");

const QUEUE = 12;
const CLIENTS = 8;
const main = values.built ? "dist/cli/main.js" : "src/cli/main.ts";

interface Heard {
  readonly id: number;
  readonly event: JobEvent<Job>;
}

const parent = await mkdtemp(join(tmpdir(), "patchwise-attacked-"));
const nats = await startNats();
const counts = new Map<string, number>();
const surprises: string[] = [];
const heard = new Map<string, readonly Heard[]>();
/** What clients have done so far, and whether they are to stop. */
const state = { accepted: 0, isOver: false };

const start = (i: number): Promise<ReplicaProcess> =>
  startReplica(main, nats.url, join(parent, String(i)), [
    "--lease=2",
    "--grace=5",
    "--processes=1",
    "--batch=2",
    `--queue-limit=${QUEUE}`,
  ]);
const replicas = await Promise.all([start(0), start(1)]);
const proxy = await roundRobin(() => replicas.map(({ port }) => port));

function count(what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** Sends a drawing; undefined if it was not accepted. */
async function submitted(): Promise<Job | undefined> {
  const response = await fetch(`${proxy.url}/api/jobs`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      prompt: "a dog",
      steps: 5 + Math.floor(Math.random() * 40),
      previews: 2,
    }),
  }).catch(() => undefined);
  count(`POST ${response?.status ?? "no answer"}`);
  if (response?.status === 202) return (await response.json()) as Job;
  const text = (await response?.text().catch(() => "")) ?? "";
  if (response?.status === 503) {
    const { message } = (JSON.parse(text) as ErrorBody).error;
    if (!/cannot be reached now/.test(message)) surprises.push(message);
  } else if (response && response.status !== 429) surprises.push(`${response.status}: ${text}`);
  return undefined;
}

/** Follows a job over as many connections as it takes. */
async function followed(id: string): Promise<readonly Heard[]> {
  const events: Heard[] = [];
  for (;;) {
    const headers = { "Last-Event-ID": String(events.at(-1)?.id ?? 0) };
    try {
      const response = await fetch(`${proxy.url}/api/jobs/${id}/events`, { headers });
      if (response.status === 404) surprises.push(`Job ${id} is lost.`);
      if (response.status === 404) return events;
      if (response.ok) for await (const each of eventsOf(response)) events.push(each);
    } catch {
      count("broken stream");
    }
    const last = events.at(-1)?.event;
    if (last?.kind === "job" && ["succeeded", "failed", "cancelled"].includes(last.job.state)) {
      return events;
    }
    await sleep(100);
  }
}

/** Events of a response as they come; what a broken connection has left half is dropped. */
async function* eventsOf(response: Response): AsyncGenerator<Heard> {
  let text = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const block = text.slice(0, end);
      text = text.slice(end + 2);
      const id = /^id: (\d+)$/m.exec(block);
      const data = /^data: (.*)$/m.exec(block);
      if (id && data) yield { id: Number(id[1]), event: JSON.parse(data[1]!) as JobEvent<Job> };
    }
  }
}

async function client(): Promise<void> {
  while (!state.isOver) {
    const job = await submitted();
    if (!job) {
      await sleep(200);
      continue;
    }
    state.accepted++;
    heard.set(job.id, []);
    heard.set(job.id, await followed(job.id));
  }
}

const clients = Array.from({ length: CLIENTS }, client);
const begun = Date.now();
for (let i = 0; i < kills; i++) {
  const before = state.accepted;
  while (state.accepted < before + 2) await sleep(20);
  await sleep(Math.random() * 2000);
  const one = i % 2;
  const isTerm = i % 5 === 4;
  const ending = Date.now();
  const code = await replicas[one]!.end(isTerm ? "SIGTERM" : "SIGKILL");
  count(isTerm ? `SIGTERM, exit code ${code}` : "SIGKILL");
  if (isTerm && (code !== 0 || Date.now() - ending > 15_000)) {
    surprises.push(`SIGTERM: exit code ${code} after ${Date.now() - ending} ms.`);
  }
  if (i % Math.ceil(kills / Math.max(1, restarts)) === 1 && restarts > 0) {
    await nats.stop("SIGKILL");
    await sleep(500 + Math.random() * 1500);
    await nats.start();
    count("queue killed");
  }
  replicas[one] = await start(one);
  process.stderr.write(`${i + 1} of ${kills}: ${state.accepted} accepted\n`);
}
state.isOver = true;
await Promise.all(clients);

/** The stream of a job is whole: it has one end, and steps go up by one from each begin. */
function checked(id: string, mine: readonly Heard[], all: readonly Heard[]): void {
  const ends = all.filter(({ event }) => event.kind === "job" && event.job.state === "succeeded");
  if (ends.length !== 1) surprises.push(`Job ${id} has ${ends.length} ends.`);
  const lasting = (events: readonly Heard[]) =>
    events.filter(({ event }) => event.kind !== "preview").map((each) => each.id);
  if (JSON.stringify(lasting(mine)) !== JSON.stringify(lasting(all))) {
    surprises.push(`Job ${id}: a client heard ${lasting(mine).join()} of ${lasting(all).join()}.`);
  }
  let step = 0;
  for (const { event } of all) {
    if (event.kind === "job") step = 0;
    if (event.kind === "progress" && event.step !== ++step) {
      surprises.push(`Job ${id}: step ${event.step} where ${step} was due.`);
      break;
    }
  }
}

let redrawn = 0;
for (const [id, mine] of heard) {
  const all = await followed(id);
  checked(id, mine, all);
  if (all.filter(({ event }) => event.kind === "job" && event.job.state === "running").length > 1)
    redrawn++;
  const job = (await (await fetch(`${proxy.url}/api/jobs/${id}`)).json()) as Job;
  if (job.state !== "succeeded") surprises.push(`Job ${id} is ${job.state}: ${job.error}`);
  for (const { url } of job.pictures) {
    const picture = await fetch(proxy.url + url);
    if (picture.status !== 200) surprises.push(`${url}: ${picture.status}`);
    await picture.arrayBuffer();
  }
}
const codes = await Promise.all(replicas.map((each) => each.end("SIGTERM")));
proxy.close();
await nats.remove();
await rm(parent, { recursive: true, force: true });

const report = {
  seconds: Math.round((Date.now() - begun) / 1000),
  accepted: state.accepted,
  redrawn,
  counts: Object.fromEntries(counts),
  codes,
  surprises: [...new Set(surprises)],
};
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
process.exitCode = surprises.length === 0 ? 0 : 1;
