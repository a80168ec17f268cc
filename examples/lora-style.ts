/**
 * Does a LoRA teach a model a style? Twenty emoji in a style that the shipped model has never seen become a folder of captioned
 * pictures; a LoRA is trained on it; the same prompts and seeds are drawn with none, half and all of it, side by side, and how
 * far each is from the style is measured, on the twenty and on emoji of that style that nobody trained on.
 *
 *   node scripts/run.mjs examples/lora-style.ts [STYLE] [STEPS] [OUT]
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { dataSchema, openData } from "patchwise/data/node";
import { nodeBackend } from "patchwise/engine/node";
import { type Picture, pictureGrid } from "patchwise/pictures";
import { writePicture } from "patchwise/pictures/node";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";
import { readTrainingConfig, train } from "patchwise/training/node";

const [style = "3d", steps = "300", out = `runs/lora-${style}`] = process.argv.slice(2);
const base = "emoji";
const shape = { height: 64, width: 64, channels: 3 } as const;

/** The prompts of the LoRA's pictures. */
const shown =
  "red apple, cat face, grinning face, automobile, pizza, sun, red heart, tulip, dog face, house, banana, soccer ball, star, bus, mushroom, ghost, fish, umbrella, wrapped gift, crown".split(
    ", ",
  );
/** The prompts to draw with the LoRA, half of which it was trained on. */
const prompts = ["red apple", "cat face", "automobile", "tiger face", "green apple", "locomotive"];
const seeds = 2;
const weights = [0, 0.5, 1];

interface Named extends Picture {
  readonly name: string;
}

/** All emoji of a style. */
async function emojiOf(name: string): Promise<readonly Named[]> {
  const data = await openData(
    dataSchema.parse({ kind: "emoji", styles: [name], split: "all" }),
    shape,
  );
  const pictures: Named[] = [];
  for (let i = 0; i < data.count; i++) {
    const { pixels } = await data.example(i);
    pictures.push({ ...shape, pixels, name: data.nameOf(i).replace(/ \([^)]*\)$/, "") });
  }
  await data.close();
  return pictures;
}

const all = await emojiOf(style);
const taught = all.filter(({ name }) => shown.includes(name));
const folder = join(out, "pictures");
await rm(out, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
const lines: string[] = [];
for (const [i, picture] of taught.entries()) {
  const file = `${String(i + 1).padStart(2, "0")}.png`;
  await writePicture(join(folder, file), picture);
  lines.push(JSON.stringify({ file_name: file, text: picture.name }));
}
await writeFile(join(folder, "metadata.jsonl"), `${lines.join("\n")}\n`);

const file = "examples/lora.yaml";
const lora = join(out, "lora");
const config = readTrainingConfig(file, await readFile(file, "utf8"), [
  `base=${base}`,
  `data.path=${JSON.stringify(folder)}`,
  `training.steps=${steps}`,
  "training.threads=1",
]);
const { seconds, loss } = await train(config, {
  backend: nodeBackend(),
  out: lora,
  report: (event) => {
    if (event.kind !== "step" || event.step % 20 !== 0) return;
    console.error(`step ${event.step} of ${event.steps}: loss ${event.loss.toFixed(4)}`);
  },
});
console.log(
  `${taught.length} pictures of the style "${style}", ${steps} steps in ${seconds.toFixed(0)} s, loss ${loss.toFixed(4)}`,
);

/** One row for each weight. */
const rows: (readonly Picture[])[] = [];
for (const weight of weights) {
  const pipeline = await openPipeline(base, { loras: [{ file: lora, weight }] });
  const row: Picture[] = [];
  for (const prompt of prompts) {
    row.push(...(await finished(pipeline.generate({ prompt, count: seeds, seed: 1 }))));
  }
  await pipeline.dispose();
  rows.push(row);
}
const columns = prompts.length * seeds;
await writePicture(join(out, "grid.png"), pictureGrid(rows.flat(), columns, { scale: 1 }));

// How a style looks, in numbers that do not know what is shown: how its colours and its edges are distributed.
const unseen = all.filter(({ name }) => !shown.includes(name)).slice(0, 400);
const known = (await emojiOf("noto")).filter(({ name }) => shown.includes(name));
console.log("distance to            its 20 pictures   others of the style   the same 20 as noto");
const sets = [taught, unseen, known].map((set) => set.map(features));
for (const [i, row] of rows.entries()) {
  const distances = sets.map((set) => energyDistance(row.map(features), set).toFixed(3));
  console.log(
    `drawn with weight ${String(weights[i]).padEnd(4)} ${distances.join("               ")}`,
  );
}
const between = [sets[1]!, sets[2]!].map((set) => energyDistance(sets[0]!, set).toFixed(3));
console.log(`its 20 pictures        0.000               ${between.join("               ")}`);
console.log(`Drawn with weights ${weights.join(", ")}, a row each: ${join(out, "grid.png")}`);

/** Histograms, of 6 bins each, of brightness, saturation and pixel differences, outside the white background. */
function features({ width, height, pixels }: Picture): readonly number[] {
  const counts = new Float64Array(18);
  let count = 0;
  const level = (value: number) => Math.min(5, Math.floor(value * 6));
  const light = (at: number) => (pixels[at]! + pixels[at + 1]! + pixels[at + 2]!) / 765;
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const at = 3 * (y * width + x);
      const [r, g, b] = [pixels[at]!, pixels[at + 1]!, pixels[at + 2]!];
      if (Math.min(r, g, b) > 245) continue;
      const most = Math.max(r, g, b, 1);
      const edge = Math.hypot(light(at + 3) - light(at), light(at + 3 * width) - light(at));
      counts[level(light(at))]!++;
      counts[6 + level((most - Math.min(r, g, b)) / most)]!++;
      // Steps are seldom large: each level is twice as far as the one before.
      counts[12 + Math.min(5, Math.max(0, Math.floor(Math.log2(edge * 256 + 1))))]!++;
      count++;
    }
  }
  // Roots of shares, so that rare levels count too (Hellinger's distance).
  return [...counts].map((each) => Math.sqrt(each / Math.max(1, count)));
}

type Vectors = readonly (readonly number[])[];

/** How far two sets are from coming from one distribution: 0 where they do (Székely & Rizzo, 2013). */
function energyDistance(a: Vectors, b: Vectors): number {
  const mean = (p: Vectors, q: Vectors, pairs: number) =>
    p.reduce(
      (sum, x) =>
        sum + q.reduce((s, y) => s + Math.hypot(...x.map((value, i) => value - y[i]!)), 0),
      0,
    ) / pairs;
  const within = (set: Vectors) => mean(set, set, set.length * (set.length - 1));
  return 2 * mean(a, b, a.length * b.length) - within(a) - within(b);
}
