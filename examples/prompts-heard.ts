/**
 * Measures how much a trained model depends on its prompts: the loss on its held-out pictures with their own prompts, with
 * shuffled and with empty prompts; and a grid of drawings with a row for each prompt, where a column has the same noise.
 *
 *   node scripts/run.mjs examples/prompts-heard.ts runs/emoji-mmdit
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openLoader } from "patchwise/data/node";
import { fork, graphOf, type NdArray, ndarray, randomKey } from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { readTrainedFolder } from "patchwise/models";
import { pictureGrid } from "patchwise/pictures";
import { writePicture } from "patchwise/pictures/node";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";
import { examplesOf, objective } from "patchwise/training";
import { trainingConfigSchema } from "patchwise/training/node";
import { storedWeights } from "patchwise/weights";
import { diskFolder, openSafetensorsFile } from "patchwise/weights/node";

/** 512 pictures, the same for every model, whatever batch it was trained with. */
const [BATCHES, ROWS] = [8, 64];
const folder = process.argv[2] ?? "runs/emoji-mmdit";
const prompts = ["red apple", "cat face", "red heart", "automobile", "sun", "tree"];

const config = trainingConfigSchema().parse(
  JSON.parse(await readFile(join(folder, "config.json"), "utf8")),
);
const { card, tokenizer } = await readTrainedFolder(diskFolder(folder));
const held = "data" in config.validation ? config.validation.data : undefined;
if (!held) throw new Error(`${folder} was trained without held-out pictures.`);
const loader = await openLoader({
  data: held,
  shape: card.picture,
  batch: ROWS,
  seed: 0,
  from: 0,
});

const weights = await openSafetensorsFile(join(folder, "model.safetensors"));
const { loss } = objective(card.network, card.diffusion, { recompute: false });
const program = await nodeBackend("cpu").compile(graphOf({ loss }), {
  weights: storedWeights(weights),
});

/** Each row's value is the next row's: nobody keeps their own. */
function turned<Array extends NdArray>(array: Array): Array {
  const rows = array.data.length / array.shape[0]!;
  const data = array.data.slice();
  data.set(array.data.subarray(rows) as never, 0);
  data.set(array.data.subarray(0, rows) as never, array.data.length - rows);
  return { ...array, data };
}

const sums = { own: 0, others: 0, none: 0 };
for (let i = 0; i < BATCHES; i++) {
  const inputs = examplesOf(await loader.next(), fork(randomKey(0, 1), i), {
    network: card.network,
    recipe: card.diffusion,
    tokenizer,
    dropCondition: 0,
  });
  const { ids, mask, drop } = inputs as Record<"ids" | "mask", NdArray> & {
    drop: NdArray<"bool">;
  };
  const lossOf = async (condition: object) =>
    Number((await program.run({ ...inputs, ...condition }))["loss"]!.data[0]) / BATCHES;
  sums.own += await lossOf({});
  sums.others += await lossOf({ ids: turned(ids), mask: turned(mask) });
  sums.none += await lossOf({
    drop: ndarray(
      "bool",
      drop.shape,
      drop.data.map(() => 1),
    ),
  });
}
await loader.close();
await program.dispose();
await weights.close();
console.log(`held-out loss with their own prompts  ${sums.own.toFixed(4)}`);
console.log(`                with each other's     ${sums.others.toFixed(4)}`);
console.log(`                with none             ${sums.none.toFixed(4)}`);

const pipeline = await openPipeline(folder);
const pictures = [];
for (const prompt of prompts) {
  pictures.push(...(await finished(pipeline.generate({ prompt, count: 8, seed: 1 }))));
}
await pipeline.dispose();
const file = join(folder, "prompts.png");
await writePicture(file, pictureGrid(pictures, 8));
console.log(`Drew ${prompts.join(", ")} in ${file}.`);
