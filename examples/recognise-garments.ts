/**
 * Do generated garments look like what was asked for? A small transformer learns to classify the real pictures of
 * Fashion-MNIST, then judges what a trained DiT draws of each class.
 *
 *   patchwise train examples/fashion-mnist.yaml --out runs/fashion
 *   node scripts/run.mjs examples/recognise-garments.ts runs/fashion
 */
import { mkdir } from "node:fs/promises";
import { dataSchema, openLoader } from "patchwise/data/node";
import {
  batch,
  fork,
  graphOf,
  input,
  type NdArray,
  ndarray,
  randomKey,
  scalar,
} from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import {
  createParams,
  feedForward,
  initialize,
  linear,
  norm,
  normal,
  patchEmbedding,
  selfAttention,
} from "patchwise/nn";
import { pictureGrid, valuesOf } from "patchwise/pictures";
import { writePicture } from "patchwise/pictures/node";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";
import { adamW, createTrainer, emaPrefix, rateAt, trainingStep } from "patchwise/training";

const [folder = "runs/fashion", path, each = "100"] = process.argv.slice(2);
const shape = { height: 28, width: 28, channels: 1 } as const;
const steps = 3000;
const size = 64;

// The classifier: patches of 4×4, two blocks of width 96, the mean of the tokens.
const [hidden, heads, classes] = [96, 3, 10];
const params = createParams();
const image = input("image", [batch, 1, 28, 28]);
const style = { kind: "rms", affine: true, epsilon: 1e-6 } as const;
let h = patchEmbedding(params.at("patches"), image, 4, hidden, { kind: "linear" });
h = h.add(params.param("positions", [1, 49, hidden], normal(0.02)));
for (let i = 0; i < 2; i++) {
  const block = params.at(`blocks.${i}`);
  h = h.add(selfAttention(block.at("attn"), norm(block.at("norm1"), h, style), heads));
  const inner = norm(block.at("norm2"), h, style);
  h = h.add(feedForward(block.at("mlp"), inner, 4 * hidden, { kind: "swiglu" }));
}
const logits = linear(params.at("head"), norm(params.at("norm"), h, style).mean(1), classes);
const label = input("label", [batch], "int64");
const loss = logits.logSoftmax().mul(label.oneHot(classes)).sum(-1).mean().neg();

const backend = nodeBackend("cpu");
const data = (split: "train" | "test", flip: boolean) =>
  dataSchema.parse({ kind: "idx", split, flip, ...(path && { path }) });
const trained = Object.fromEntries(
  [...params.declared].map(([name, { tensor }]) => [name, tensor]),
);
const step = trainingStep({
  loss,
  params: trained,
  optimizer: adamW({ learningRate: input("rate", []), weightDecay: 0.05 }),
  emaDecay: 0.995,
});
const key = randomKey(0);
const trainer = await createTrainer(backend, step, initialize(params, fork(key, "weights")));
const examples = ({ pixels, labels }: { pixels: Uint8Array; labels: Int32Array | undefined }) => ({
  image: valuesOf(pixels, shape),
  label: ndarray("int64", [labels!.length], BigInt64Array.from(labels!, BigInt)),
});
const loader = await openLoader({
  data: data("train", true),
  shape,
  batch: size,
  seed: 1,
  from: 0,
});
const schedule = { rate: 2e-3, warmUp: 100, decay: { kind: "cosine", over: 1, to: 0 } } as const;
for (let i = 1; i <= steps; i++) {
  const rate = scalar(rateAt(schedule, i, i / steps));
  const { loss: value } = await trainer.step({ ...examples(await loader.next()), rate });
  if (i % 500 === 0) console.log(`classifier: step ${i} of ${steps}, loss ${value.toFixed(3)}`);
}
await loader.close();
const state = await trainer.readState();
await trainer.dispose();
const classifier = await backend.compile(graphOf({ logits }), {
  weights: (name) => ({ kind: "array", array: state[emaPrefix + name]! }),
});

/** The likeliest class of each image. */
async function recognised(images: NdArray): Promise<number[]> {
  const { logits: scores } = await classifier.run({ image: images });
  return Array.from({ length: images.shape[0]! }, (_, i) => {
    const row = [...(scores!.data as Float32Array).subarray(i * classes, (i + 1) * classes)];
    return row.indexOf(Math.max(...row));
  });
}

const test = await openLoader({ data: data("test", false), shape, batch: 500, seed: 0, from: 0 });
let right = 0;
for (let i = 0; i < 20; i++) {
  const given = await test.next();
  const predicted = await recognised(valuesOf(given.pixels, shape));
  right += predicted.filter((guess, j) => guess === given.labels![j]).length;
}
console.log(`classifier: recognises ${(right / 100).toFixed(1)} % of 10,000 real test pictures`);
const names = test.info.classes!;
await test.close();

const count = Number(each);
const pipeline = await openPipeline(folder, { device: "cpu" });
const shown = [];
let total = 0;
for (const [i, name] of names.entries()) {
  const pictures = await finished(pipeline.generate({ class: name, count, seed: 1000 * i }));
  const pixels = Uint8Array.from(pictures.flatMap((picture) => [...picture.pixels]));
  const guesses = await recognised(valuesOf(pixels, shape));
  const hits = guesses.filter((guess) => guess === i).length;
  total += hits;
  shown.push(...pictures.slice(0, 12));
  console.log(`${name.padEnd(12)} ${((100 * hits) / count).toFixed(0).padStart(3)} %`);
}
console.log(
  `recognised as what was asked: ${((100 * total) / (count * names.length)).toFixed(1)} %`,
);
await mkdir("runs", { recursive: true });
await writePicture("runs/garments.png", pictureGrid(shown, 12, { scale: 2, gap: 1 }));
await Promise.all([pipeline.dispose(), classifier.dispose()]);
