/**
 * Which times of a rectified flow to train, in the small (Esser et al., 2024, section 3.1 and table 1): two MMDiT models
 * that differ in nothing but the distribution of their training times, uniform or logit-normal, learn the emoji for the
 * same steps. Both are measured on emoji that were held out, at times drawn uniformly, and plotted.
 *
 *   node scripts/run.mjs examples/flow-times.ts [STEPS]
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { nodeBackend } from "patchwise/engine/node";
import { train, trainingConfigSchema } from "patchwise/training/node";
import { chart, type ChartPoint } from "./chart.ts";

const steps = Number(process.argv[2] ?? 600);
const folder = join("runs", `flow-times-${steps}`);
const every = Math.max(1, Math.round(steps / 12));
const distributions = [{ kind: "uniform" }, { kind: "logit-normal", mean: 0, std: 1 }] as const;

async function curveOf(times: (typeof distributions)[number]): Promise<ChartPoint[]> {
  const emoji = { kind: "emoji", styles: ["noto", "flat", "twemoji", "emojione"] } as const;
  const config = trainingConfigSchema().parse({
    name: times.kind,
    data: { ...emoji, split: "train" },
    picture: { size: 32 },
    model: { kind: "mmdit", patch: 4, hidden: 128, depth: 6 },
    // As in the paper the network predicts the velocity, and every time counts alike.
    diffusion: {
      process: "flow",
      predicts: "flow",
      weighting: { kind: "space", space: "flow" },
      times,
    },
    training: { steps, batch: 64, warmUp: Math.min(100, steps), ema: 0.99, threads: 1 },
    validation: {
      data: { ...emoji, split: "held-out" },
      steps: every,
      batches: 16,
      times: { kind: "uniform" },
    },
  });
  const curve: ChartPoint[] = [];
  await train(config, {
    backend: nodeBackend("cpu"),
    out: join(folder, times.kind),
    report: (event) => {
      if (event.kind !== "validation") return;
      curve.push({ x: event.step, y: event.loss });
      console.log(`${times.kind.padEnd(12)} step ${event.step}  loss ${event.loss.toFixed(4)}`);
    },
  });
  return curve;
}

await mkdir(folder, { recursive: true });
const series = [];
for (const times of distributions) {
  series.push({ name: times.kind, style: "both" as const, points: await curveOf(times) });
}
const svg = chart({
  title: `Times of training: MMDiT on emoji, ${steps} steps`,
  x: { label: "steps" },
  y: { label: "v-loss on held-out emoji, times uniform", scale: "log" },
  // The first steps would leave no room for what differs.
  series: series.map((each) => ({ ...each, points: each.points.slice(1) })),
});
await writeFile(join(folder, "flow-times.json"), `${JSON.stringify(series, null, 2)}\n`);
await writeFile(join(folder, "flow-times.svg"), svg);
await sharp(Buffer.from(svg)).png().toFile(join(folder, "flow-times.png"));
console.log(`Wrote ${join(folder, "flow-times.svg")} and flow-times.png.`);
