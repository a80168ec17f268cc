/**
 * The DiT paper's central finding in the small (Peebles & Xie, 2022, figures 2 and 8): whether compute comes from wider
 * and deeper models or from smaller patches, the loss falls with Gflops. Trains several sizes and patch sizes on
 * Fashion-MNIST for the same steps, and plots validation loss against Gflops.
 *
 *   node scripts/run.mjs examples/scaling.ts [STEPS]
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { countMultiplyAdds, graphOf } from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { traceNetwork } from "patchwise/models";
import { readCard } from "patchwise/pipelines";
import { train, trainingConfigSchema } from "patchwise/training/node";
import { chart } from "./chart.ts";

const steps = Number(process.argv[2] ?? 400);
const folder = join("runs", `scaling-${steps}`);
const sizes = {
  XS: { hidden: 64, depth: 3, heads: 1 },
  S: { hidden: 128, depth: 4, heads: 2 },
  M: { hidden: 192, depth: 6, heads: 3 },
};
const patches = [14, 7, 4];

interface Trained {
  readonly name: string;
  readonly gflops: number;
  readonly loss: number;
}

async function trained(size: keyof typeof sizes, patch: number): Promise<Trained> {
  const name = `${size}/${patch}`;
  const out = join(folder, `${size}-${patch}`);
  const config = trainingConfigSchema().parse({
    name,
    data: { kind: "idx", flip: true },
    picture: { size: 28, channels: 1 },
    // Patches enter through one linear layer, as in the paper, so that patch sizes differ in nothing else.
    model: { ...sizes[size], patch, patches: { kind: "linear" } },
    training: { steps, batch: 64, warmUp: 50, ema: 0.99 },
    validation: { data: { kind: "idx", split: "test" }, steps, batches: 16 },
  });
  const measured: number[] = [];
  await train(config, {
    backend: nodeBackend("cpu"),
    out,
    report: (event) => {
      if (event.kind === "validation") measured.push(event.loss);
    },
  });
  const card = readCard(out, JSON.parse(await readFile(join(out, "model.json"), "utf8")));
  const { output } = traceNetwork(card.network);
  const gflops = countMultiplyAdds(graphOf({ output }), 1) / 1e9;
  const loss = measured.at(-1)!;
  console.log(`${name.padEnd(6)} ${gflops.toFixed(4)} Gflops  loss ${loss.toFixed(4)}`);
  return { name, gflops, loss };
}

/** Pearson's correlation. */
function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const [ma, mb] = [mean(a), mean(b)];
  const products = (x: readonly number[], mx: number, y: readonly number[], my: number) =>
    x.reduce((sum, value, i) => sum + (value - mx) * (y[i]! - my), 0);
  return products(a, ma, b, mb) / Math.sqrt(products(a, ma, a, ma) * products(b, mb, b, mb));
}

await mkdir(folder, { recursive: true });
const results: (Trained & { readonly size: string })[] = [];
for (const size of Object.keys(sizes) as (keyof typeof sizes)[]) {
  for (const patch of patches) results.push({ size, ...(await trained(size, patch)) });
}
const r = correlation(
  results.map(({ gflops }) => Math.log(gflops)),
  results.map(({ loss }) => Math.log(loss)),
);
console.log(`correlation of log loss with log Gflops: ${r.toFixed(3)}`);

const svg = chart({
  title: `Validation loss after ${steps} steps: correlation with Gflops ${r.toFixed(2)}`,
  x: { label: "Gflops (10⁹ multiply-adds)", scale: "log" },
  y: { label: "v-loss" },
  series: Object.keys(sizes).map((size) => ({
    name: `DiT-${size}`,
    style: "both",
    points: results
      .filter((result) => result.size === size)
      .map(({ name, gflops, loss }) => ({ x: gflops, y: loss, label: name })),
  })),
});
await writeFile(
  join(folder, "scaling.json"),
  `${JSON.stringify({ steps, correlation: r, results }, null, 2)}\n`,
);
await writeFile(join(folder, "scaling.svg"), svg);
await sharp(Buffer.from(svg)).png().toFile(join(folder, "scaling.png"));
console.log(`Wrote ${join(folder, "scaling.svg")} and scaling.png.`);
