/**
 * Attacks a running server: node scripts/run.mjs scripts/attack-server.ts [--seconds 60] [--kills 0] [--built]
 *
 * Sends drawings at four times of what the queue takes, with malformed bodies, huge sizes, wrong types, path tricks and dropped
 * connections, and kills processes that draw. With --kills the server itself is killed so many times at random moments, and started
 * again. With --built the server is that of dist/.
 *
 * Prints counts, failed jobs by their cause, and the slope of the server's memory. Exits with 1 unless every job that was accepted is over,
 * each failure is one that the attack caused, the server wrote nothing unexpected to its standard error, and no file lies outside its folder.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { toPng } from "../src/pictures/png.ts";
import type { AnyJob, Job } from "../src/server/wire.ts";
import { causeOfFailure, type Deed, isExpectedLine } from "./attack/causes.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    kills: { type: "string", default: "0" },
    built: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const kills = Number(values.kills);

const QUEUE = 8;
const CLIENTS = 4 * QUEUE;

const parent = await mkdtemp(join(tmpdir(), "patchwise-attacked-"));
const output = join(parent, "served");
const port = 20_000 + Math.floor(Math.random() * 20_000);
const url = `http://127.0.0.1:${port}`;

const accepted = new Set<string>();
/** Jobs as they were last seen; the server forgets all but the last thousand that are over. */
const seen = new Map<string, AnyJob>();
/** What was killed, and when. */
const deeds: Deed[] = [];
const answers = new Map<string, number>();
const surprises: string[] = [];
const memory: { readonly at: number; readonly bytes: number }[] = [];
/** Aborts when the attack is over. */
const over = new AbortController();
let server: ChildProcess;
let expectsEnd = false;

function count(what: string): void {
  answers.set(what, (answers.get(what) ?? 0) + 1);
}

async function start(): Promise<void> {
  const args = [
    values.built ? "dist/cli/main.js" : "src/cli/main.ts",
    "serve",
    "--port",
    String(port),
    "--output",
    output,
    "--queue-limit",
    String(QUEUE),
  ];
  const child = spawn(process.execPath, [...process.execArgv, ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  server = child;
  createInterface(child.stderr).on("line", (line) => {
    if (!isExpectedLine(line)) surprises.push(`The server wrote: ${line}`);
  });
  child.once("exit", (code, signal) => {
    if (!expectsEnd) surprises.push(`The server ended by itself: ${signal ?? code}.`);
  });
  for (;;) {
    const response = await fetch(`${url}/api/jobs`).catch(() => undefined);
    if (response?.ok) return;
    if (child.exitCode !== null) throw new Error("The server does not start.");
    await sleep(200);
  }
}

/** Looks at all jobs. */
async function look(): Promise<void> {
  const response = await fetch(`${url}/api/jobs?limit=100000`);
  if (!response.ok) return;
  const { jobs } = (await response.json()) as { jobs: AnyJob[] };
  for (const job of jobs) seen.set(job.id, job);
}

async function end(signal: NodeJS.Signals): Promise<void> {
  expectsEnd = true;
  const exited = new Promise((resolve) => server.once("exit", resolve));
  server.kill(signal);
  await exited;
  expectsEnd = false;
}

const json = (body: unknown, path = "/api/jobs") =>
  fetch(url + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

/** Black PNG of 8×8 pixels. */
const picture = Buffer.from(
  await toPng({ width: 8, height: 8, channels: 3, pixels: new Uint8Array(192) }),
).toString("base64");

/** A small training. */
const training = (name: string) => ({
  kind: "train",
  name,
  pictures: [{ image: picture }],
  config: {
    picture: { size: 8 },
    model: { patch: 4, hidden: 16, depth: 1, heads: 1 },
    training: { steps: 20, batch: 2 },
    samples: { grids: 0 },
  },
});

const anyOf = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!;

/** What the server must answer with 4xx. */
const refused: readonly (() => Promise<Response>)[] = [
  ...["", "{", "[]", "null", "5", '"x"', '{"prompt":', "\0\0", "{".repeat(50_000)].map(
    (body) => () => json(body),
  ),
  ...[
    { prompt: 5 },
    { prompt: ["a"] },
    { prompt: "a", steps: "many" },
    { prompt: "a", steps: 1e9 },
    { prompt: "a", steps: -1 },
    { prompt: "a", count: 1e6 },
    { prompt: "a", width: 1e9, height: 1e9 },
    { prompt: "a", size: "99999999x99999999" },
    { prompt: "a", guidance: "NaN" },
    { prompt: "a", seed: 1.5 },
    { prompt: "a", image: "AAAA" },
    { prompt: "a", image: "data:image/png;base64,%%%" },
    { prompt: "a", mask: "iVBORw0KGgo=" },
    { prompt: "x".repeat(100_000) },
    { prompt: "a", outputFormat: "exe" },
    { prompt: "a", previews: 1e9 },
    { prompt: "a", __proto__x: 1 },
    { prompt: "a", constructor: 1 },
  ].map((body) => () => json(body)),
  ...[
    "../../etc/passwd",
    "/etc/passwd",
    "emoji/../emoji",
    "models/emoji",
    "file:///etc/passwd",
    "__proto__",
    "",
    "emoji\0",
  ].flatMap((model) => [
    () => json({ prompt: "a", model }),
    () => json({ prompt: "a", loras: [{ name: model }] }),
    () => json({ prompt: "a", model: model || "x" }, "/v1/images/generations"),
  ]),
  ...[
    { name: "../evil" },
    { name: "emoji" },
    { pictures: [] },
    { pictures: [{ image: "AAAA" }] },
    { config: { training: { steps: 1e9 } } },
    { config: { training: { steps: 1, from: "/etc" } } },
    { config: { model: { prompt: { words: "../.." } }, training: { steps: 1 } } },
    { config: { data: { kind: "images", path: "/etc" } } },
  ].map((wrong) => () => json({ ...training("x"), ...wrong })),
  () => fetch(`${url}/api/jobs/__proto__/pause`, { method: "POST" }),
  () => fetch(`${url}/api/jobs/x/files/..%2f..%2fjob.json`),
  () => json("x".repeat(30 * 2 ** 20)),
  () => fetch(`${url}/api/jobs/..%2f..%2fetc%2fpasswd`),
  () => fetch(`${url}/api/jobs/__proto__/events`),
  () => fetch(`${url}/api/jobs?limit=-5`),
  () => fetch(`${url}/v1/images/edits`, { method: "POST", body: new FormData() }),
  () =>
    fetch(`${url}/v1/images/edits`, {
      method: "POST",
      headers: { "Content-Type": "multipart/form-data; boundary=x" },
      body: "--x\r\nnonsense",
    }),
  () => fetch(`${url}/healthz`, { headers: { Origin: "https://evil.example" } }),
  () => json({ prompt: "a", enable_hr: true }, "/sdapi/v1/txt2img"),
  () => json({ prompt: "a", init_images: [] }, "/sdapi/v1/img2img"),
];

/** One request of a client that means well: a drawing, or now and then a training, followed, sometimes cancelled or left. */
async function drawing(): Promise<void> {
  const response = await json(
    Math.random() < 0.05
      ? training(`t${accepted.size}-${Date.now()}`)
      : {
          prompt: anyOf(["a dog", "red heart", "猫"]),
          steps: 1 + Math.floor(Math.random() * 8),
          previews: 2,
        },
  );
  count(String(response.status));
  if (response.status === 429) {
    await response.body?.cancel();
    await sleep(200);
    return;
  }
  if (response.status === 503) return;
  if (response.status !== 202) return void surprises.push(await response.text());
  const { id } = (await response.json()) as Job;
  accepted.add(id);
  const luck = Math.random();
  if (luck < 0.2) await fetch(`${url}/api/jobs/${id}`, { method: "DELETE" });
  else if (luck < 0.4) {
    const leaving = AbortSignal.timeout(Math.random() * 1000);
    await fetch(`${url}/api/jobs/${id}/events`, { signal: leaving }).then((each) => each.text());
  }
}

/** A client that leaves before the answer. */
async function dropped(): Promise<void> {
  await fetch(`${url}/v1/images/generations`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      prompt: "a cat",
      steps: 50,
      stream: Math.random() < 0.5,
      partial_images: 2,
    }),
    signal: AbortSignal.timeout(Math.random() * 2000),
  }).then((response) => response.text());
}

async function client(): Promise<void> {
  while (!over.signal.aborted) {
    try {
      const luck = Math.random();
      if (luck < 0.5) await drawing();
      else if (luck < 0.6) await dropped();
      else {
        const attack = anyOf(refused);
        const response = await attack();
        count(String(response.status));
        const text = await response.text();
        const isStarting = response.status === 503;
        if (!isStarting && (response.status >= 500 || response.status < 400)) {
          surprises.push(`${response.status} for ${attack.toString()}: ${text.slice(0, 200)}`);
        }
      }
    } catch {
      // Timeouts, and connections that end with the server.
      count("no answer");
      await sleep(50);
    }
  }
}

/** Kills a process that draws now and then, and watches the server's memory. */
async function disturb(): Promise<void> {
  const begun = Date.now();
  for (let i = 1; !over.signal.aborted; i++) {
    await sleep(1000);
    const { pid } = server;
    if (pid === undefined || server.exitCode !== null) continue;
    try {
      const rss = execFileSync("ps", ["-o", "rss=", "-p", String(pid)]).toString();
      memory.push({ at: (Date.now() - begun) / 1000, bytes: 1024 * Number(rss) });
      await look();
      if (i % 10 !== 0) continue;
      const args = ["-ww", "-o", "pid=,args=", "--ppid", String(pid)];
      const children = execFileSync("ps", args).toString().split("\n");
      const child = anyOf(children.filter((each) => /(?:drawing|training)-process/.test(each)));
      const what = child.includes("drawing-process") ? "drawing" : "training";
      process.kill(Number.parseInt(child, 10), "SIGKILL");
      deeds.push({ killed: what, at: Date.now() });
      count(`killed ${what} process`);
    } catch {
      // It has just ended.
    }
  }
}

/** The slope of a line through the memory in the second half, in bytes a minute. */
function slope(): number {
  const points = memory.slice(Math.floor(memory.length / 2));
  const mean = (values_: readonly number[]) => values_.reduce((a, b) => a + b, 0) / values_.length;
  const [x, y] = [mean(points.map(({ at }) => at)), mean(points.map(({ bytes }) => bytes))];
  const upper = points.reduce((sum, each) => sum + (each.at - x) * (each.bytes - y), 0);
  const lower = points.reduce((sum, each) => sum + (each.at - x) ** 2, 0);
  return (60 * upper) / lower;
}

await start();
const clients = Promise.all([...Array.from({ length: CLIENTS }, client), disturb()]);
for (let i = 0; i < kills; i++) {
  // A server that has accepted something has something to lose.
  const before = accepted.size;
  while (accepted.size < before + 2) await sleep(20);
  await sleep(Math.random() * ((1000 * seconds) / kills));
  await end("SIGKILL");
  deeds.push({ killed: "server", at: Date.now() });
  count("killed server");
  await start();
}
if (kills === 0) await sleep(1000 * seconds);
over.abort();
await clients;

// What was accepted is drawn to its end.
const isOpen = ({ state }: AnyJob) => state === "queued" || state === "running";
for (let i = 0; i < 600; i++) {
  await look();
  if (![...seen.values()].some(isOpen)) break;
  await sleep(500);
}
const jobs = [...seen.values()];
const lost = [...accepted].filter((id) => !seen.has(id));
const stuck = jobs.filter(isOpen);
const failures: Record<string, number> = {};
for (const job of jobs.filter(({ state }) => state === "failed")) {
  const { cause, isOurs } = causeOfFailure(job, { deeds, waited: !accepted.has(job.id) });
  failures[cause] = (failures[cause] ?? 0) + 1;
  if (!isOurs) surprises.push(`A ${job.kind} job failed: ${job.error}`);
}
const outside = (await readdir(parent)).filter((name) => name !== "served");
await end("SIGTERM");
await rm(parent, { recursive: true, force: true });

const ended: Record<string, number> = {};
for (const { state } of jobs) ended[state] = (ended[state] ?? 0) + 1;
const report = {
  answers: Object.fromEntries(answers),
  accepted: accepted.size,
  ended,
  failures,
  lost: lost.length,
  stuck: stuck.length,
  outside,
  memoryMiB: memory.length > 0 ? Math.round(memory.at(-1)!.bytes / 2 ** 20) : 0,
  slopeMiBPerMinute: kills === 0 ? Number((slope() / 2 ** 20).toFixed(1)) : undefined,
  surprises: [...new Set(surprises)],
};
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
const isFine = lost.length + stuck.length + outside.length + surprises.length === 0;
process.exitCode = isFine ? 0 : 1;
