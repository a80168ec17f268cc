/**
 * `npm run bench -- serve [--json]`: 64 requests to a server with the bundled model, one at a time and 16 at a time. Both draw the
 * same requests, in alternating rounds, so that drift of the machine cancels; and each picture is compared with its counterpart.
 */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readPicture } from "../src/pictures/decode-node.ts";
import type { Job, JobEvent, JobRequest } from "../src/server/wire.ts";

const REQUESTS = 64;
const CONCURRENCY = 16;
const ROUNDS = 2;

const prompts = ["red heart", "dog", "cat face", "banana", "rocket", "blue house", "pizza", "sun"];

/** Different prompts, seeds, steps and guidance. */
const requests = Array.from({ length: REQUESTS }, (_, i): JobRequest => ({
  prompt: prompts[i % prompts.length]!,
  seed: i,
  steps: 10 + (i % 5),
  guidance: i % 4 === 0 ? 2 : 1,
  previews: 1,
}));

interface Answer {
  readonly seconds: number;
  /** From the request to the first preview. */
  readonly toPreview: number;
  readonly pixels: Uint8Array;
}

/** Draws requests from a list, a number of them at the same time. */
async function drawAll(
  url: string,
  wanted: readonly JobRequest[],
  concurrency: number,
): Promise<{ answers: Answer[]; seconds: number }> {
  const answers: Answer[] = [];
  let next = 0;
  const begun = performance.now();
  const client = async () => {
    while (next < wanted.length) {
      const at = next++;
      answers[at] = await draw(url, wanted[at]!);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, client));
  return { answers, seconds: (performance.now() - begun) / 1000 };
}

async function draw(url: string, request: JobRequest): Promise<Answer> {
  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1000;
  const accepted = await fetch(`${url}/api/jobs`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  if (!accepted.ok) throw new Error(await accepted.text());
  const { id } = (await accepted.json()) as Job;
  const events = await fetch(`${url}/api/jobs/${id}/events`);
  let [text, toPreview] = ["", NaN];
  for await (const chunk of events.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (Number.isNaN(toPreview) && text.includes('"kind":"preview"')) toPreview = elapsed();
  }
  const seconds = elapsed();
  const [last] = text.match(/^data: .*$/gm)!.slice(-1);
  const event = JSON.parse(last!.slice("data: ".length)) as Extract<JobEvent<Job>, { kind: "job" }>;
  if (event.job.state !== "succeeded") throw new Error(event.job.error ?? event.job.state);
  const file = await fetch(`${url}${event.job.pictures[0]!.url}`);
  const { pixels } = await readPicture(new Uint8Array(await file.arrayBuffer()));
  return { seconds, toPreview, pixels };
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

/** The longest stall of the server's event loop since the last question, in milliseconds. */
async function longestStall(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return 1000 * Number(/^patchwise_event_loop_stall_seconds (\S+)$/m.exec(text)![1]);
}

async function measure(url: string): Promise<object> {
  // Compiles the programs, for one row and for many.
  await drawAll(url, requests.slice(0, CONCURRENCY), 1);
  await drawAll(url, requests.slice(0, CONCURRENCY), CONCURRENCY);
  await longestStall(url);
  const alone: Answer[] = [];
  const together: Answer[] = [];
  let [aloneSeconds, togetherSeconds] = [0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    const part = requests.slice((round * REQUESTS) / ROUNDS, ((round + 1) * REQUESTS) / ROUNDS);
    const one = await drawAll(url, part, 1);
    const many = await drawAll(url, part, CONCURRENCY);
    alone.push(...one.answers);
    together.push(...many.answers);
    aloneSeconds += one.seconds;
    togetherSeconds += many.seconds;
  }
  const differences = together.map(({ pixels }, i) =>
    pixels.reduce((most, value, at) => Math.max(most, Math.abs(value - alone[i]!.pixels[at]!)), 0),
  );
  const figures = (answers: readonly Answer[], seconds: number) => ({
    picturesPerSecond: REQUESTS / seconds,
    p50: percentile(
      answers.map((each) => each.seconds),
      0.5,
    ),
    p95: percentile(
      answers.map((each) => each.seconds),
      0.95,
    ),
    firstPreviewP50: percentile(
      answers.map((each) => each.toPreview),
      0.5,
    ),
  });
  return {
    suite: "serve",
    requests: REQUESTS,
    concurrency: CONCURRENCY,
    oneAtATime: figures(alone, aloneSeconds),
    concurrent: figures(together, togetherSeconds),
    ratio: { sequential: aloneSeconds / togetherSeconds },
    pictures: {
      equal: differences.filter((each) => each === 0).length,
      largestDifference: Math.max(...differences),
    },
    longestStallMs: await longestStall(url),
  };
}

/** @returns the exit code: 1 if a picture differs from the one that is drawn alone by more than rounding */
export async function benchServer(asJson: boolean): Promise<number> {
  const output = await mkdtemp(join(tmpdir(), "patchwise-serve-"));
  const args = ["serve", "--port", "0", "--output", output, "--batch", String(CONCURRENCY)];
  // A process of its own, whose event loop the requests of this one do not disturb.
  const server = spawn(process.execPath, [...process.execArgv, "src/cli/main.ts", ...args], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let said = "";
      server.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        const [found] = /http:\/\/\S+(?= on)/.exec(said) ?? [];
        if (found !== undefined) resolve(found);
      });
      server.once("exit", () => reject(new Error(`The server did not start: ${said}`)));
    });
    const report = await measure(url);
    const text = asJson ? JSON.stringify(report) : JSON.stringify(report, null, 2);
    process.stdout.write(`${text}\n`);
    const { pictures } = report as { pictures: { largestDifference: number } };
    return pictures.largestDifference <= 1 ? 0 : 1;
  } finally {
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    await ended;
    await rm(output, { recursive: true, force: true });
  }
}
