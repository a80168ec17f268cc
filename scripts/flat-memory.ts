/**
 * Draws in 60 sizes, and opens and disposes a pipeline 60 times with aborts and disposals at random moments: npm run test:memory
 *
 * Prints by how much memory grows with each round once the caches are full: the resident memory of the process, and what JavaScript
 * holds after a full collection, which tells objects that are kept from pages that the allocator does not give back. Fails where either
 * grows by more than its limit. It takes some minutes, so it is not part of `npm test`.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { integers, randomKey } from "../src/engine/random/random.ts";
import { openPipeline } from "../src/pipelines/index-node.ts";
import { createPipeline, finished } from "../src/pipelines/index.ts";
import { trainModel } from "../src/training/index.ts";

const ROUNDS = 60;
/** Rounds at the begin that fill caches. */
const FILLING = 20;
/** The growth of a round that is not called a leak, in MiB. */
const MOST = { resident: 1, held: 0.05 };

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Moments after which rounds are aborted, in ms. */
const moments = integers(randomKey(7), 0, 1500, [ROUNDS]).data;

await report("sizes", async (draw) => {
  const pixels = new Uint8Array(16 * 16 * 3).fill(128);
  const pictures = [{ pixels, width: 16, height: 16, channels: 3, label: "grey" }] as const;
  const backend = nodeBackend("cpu");
  const network = { hidden: 32, depth: 2, patch: 4 };
  const model = await trainModel({ backend, name: "grey", pictures, network, steps: 1, batch: 1 });
  const pipeline = createPipeline({ backend, ...model });
  await draw(async (round) => {
    // 60 different sizes of about as many pixels, in no order.
    const width = 4 * (8 + ((37 * round) % ROUNDS));
    const height = 4 * Math.round(8000 / width / 4);
    await finished(pipeline.generate({ class: "grey", steps: 2, width, height }));
  });
  await pipeline.dispose();
});

await report("rounds of opening and disposing", (draw) =>
  draw(async (round) => {
    const pipeline = await openPipeline("emoji", { worker: round % 4 === 0 });
    const stopping = new AbortController();
    const { signal } = stopping;
    const drawn = finished(pipeline.generate({ prompt: "a red heart", steps: 8, signal }));
    const ended = drawn.catch((error: unknown) => String(error));
    setTimeout(() => stopping.abort(), Number(moments[round]));
    if (round % 2 === 0) await ended;
    await pipeline.dispose();
    await ended;
  }),
);

/** Runs the rounds and prints the slope of memory, by least squares. */
async function report(
  what: string,
  use: (draw: (round: (index: number) => Promise<void>) => Promise<void>) => Promise<void>,
): Promise<void> {
  const memory: Record<keyof typeof MOST, number>[] = [];
  await use(async (round) => {
    for (let i = 0; i < ROUNDS; i++) {
      await round(i);
      collectGarbage();
      const { rss, heapUsed, external } = process.memoryUsage();
      memory.push({ resident: rss / 2 ** 20, held: (heapUsed + external) / 2 ** 20 });
    }
  });
  for (const kind of ["resident", "held"] as const) {
    const values = memory.map((each) => each[kind]);
    const slope = slopeOf(values.slice(FILLING));
    const shown = [0, FILLING, ROUNDS - 1].map((round) => values[round]!.toFixed(1)).join(", ");
    console.log(
      `${ROUNDS} ${what}: ${slope.toFixed(3)} MiB a round ${kind} (${shown} MiB after rounds 1, ${FILLING + 1}, ${ROUNDS})`,
    );
    if (slope > MOST[kind]) process.exitCode = 1;
  }
}

/** The slope of the line through values at 0, 1, 2, … by least squares. */
function slopeOf(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const products = values.map((value, i) => (i - middle) * (value - mean));
  const squares = values.map((_, i) => (i - middle) ** 2);
  return products.reduce((a, b) => a + b, 0) / squares.reduce((a, b) => a + b, 0);
}
