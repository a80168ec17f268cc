/**
 * The whole story in one file: trains a small diffusion transformer on handwritten digits for a minute and a half, then
 * draws each digit with it and writes `digits.png`.
 *
 *   node scripts/run.mjs examples/digits.ts
 *
 * Patches → tokens → transformer blocks with adaLN-zero (Peebles & Xie, 2022) → the clean image, trained by flow matching
 * (Lipman et al., 2023) with x-prediction, drawn by Euler steps with classifier-free guidance (Ho & Salimans, 2022).
 */
import { createRequire } from "node:module";
import sharp from "sharp";
import {
  batch,
  constantOf,
  fork,
  graphOf,
  input,
  integers,
  type NdArray,
  ndarray,
  normal as drawNormal,
  randomKey,
  scalar,
  type Tensor,
  uniform,
} from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { dit, type DiTConfig, ditPresets } from "patchwise/models";
import { createParams, initialize } from "patchwise/nn";
import { adamW, createTrainer, emaPrefix, trainingStep } from "patchwise/training";

const SIZE = 28;
const CLASSES = 10;
/** The label of an image without a class. */
const NONE = CLASSES;
const BATCH = 64;

/** A DiT with adaLN-zero that sees pixels, and predicts the clean image. */
const config: DiTConfig = {
  ...ditPresets["DiT-S/8"],
  size: [SIZE, SIZE],
  channels: 1,
  patch: 7,
  hidden: 128,
  depth: 4,
  heads: 4,
  learnedVariance: false,
  condition: { kind: "class", classes: CLASSES, nullClass: true },
  qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
};
const SECONDS = 90;
/** Times closer to the clean image than this are treated as this, so that 1/(1 − t) stays bounded. */
const LATEST = 0.95;

/** 10,000 digits of MNIST as pixels in [−1, 1], and their classes. */
function loadDigits(): { pixels: Float32Array; labels: number[] } {
  const require = createRequire(import.meta.url);
  const perClass = Array.from(
    { length: CLASSES },
    (_, digit) => (require(`mnist/src/digits/${digit}.json`) as { data: number[] }).data,
  );
  return {
    pixels: Float32Array.from(perClass.flat(), (x) => 2 * x - 1),
    labels: perClass.flatMap((data, digit) =>
      new Array<number>(data.length / SIZE ** 2).fill(digit),
    ),
  };
}

const backend = nodeBackend("cpu");
const seed = randomKey(0);

// The training graph: x_t = t·x + (1 − t)·noise, and the loss on the velocity that x-prediction implies.
const shape = [batch, 1, SIZE, SIZE] as const;
const params = createParams();
const model = (image: Tensor, y: Tensor) => dit(params, { x: image, t: time.mul(1000), y }, config);
const [x, noise] = [input("x", shape), input("noise", shape)];
const [time, label] = [input("time", [batch]), input("label", [batch], "int64")];
const t = time.reshape([batch, 1, 1, 1]);
const noisy = x.mul(t).add(noise.mul(t.neg().add(1)));
const predicted = model(noisy, label);
const weight = t
  .neg()
  .add(1)
  .maximum(1 - LATEST)
  .reciprocal();
const loss = predicted.sub(x).mul(weight).square().mean();
const trained = Object.fromEntries(
  [...params.declared].map(([name, { tensor }]) => [name, tensor]),
);
const step = trainingStep({
  loss,
  params: trained,
  optimizer: adamW({ learningRate: input("rate", []), beta2: 0.99 }),
  emaDecay: 0.99,
});
const trainer = await createTrainer(backend, step, initialize(params, fork(seed, "weights")));

const digits = loadDigits();
const count = [...params.declared.values()].reduce(
  (sum, { tensor }) => sum + tensor.shape.reduce<number>((n, dim) => n * Number(dim), 1),
  0,
);
console.log(
  `Training a diffusion transformer of ${count.toLocaleString("en")} parameters on ${digits.labels.length} digits for ${SECONDS} s.`,
);

const begin = performance.now();
for (let i = 1, seconds = 0; seconds < SECONDS; i++) {
  const key = fork(fork(seed, "batches"), i);
  const chosen = integers(fork(key, "images"), 0, digits.labels.length, [BATCH]).data;
  const images = new Float32Array(BATCH * SIZE ** 2);
  const labels: number[] = [];
  const drop = uniform(fork(key, "drop"), [BATCH]).data;
  for (const [row, index] of chosen.entries()) {
    const at = Number(index) * SIZE ** 2;
    images.set(digits.pixels.subarray(at, at + SIZE ** 2), row * SIZE ** 2);
    // One in ten learns without its class, which is what guidance compares with.
    labels.push(drop[row]! < 0.1 ? NONE : digits.labels[Number(index)]!);
  }
  const times = drawNormal(fork(key, "time"), [BATCH]).data.map((z) => 1 / (1 + Math.exp(0.5 - z)));
  const { loss: value } = await trainer.step({
    x: ndarray("float32", [BATCH, 1, SIZE, SIZE], images),
    noise: drawNormal(fork(key, "noise"), [BATCH, 1, SIZE, SIZE]),
    time: ndarray("float32", [BATCH], times),
    label: ndarray("int64", [BATCH], labels),
    // The second half cools down to nothing, which sharpens what is drawn more than the loss tells.
    rate: scalar(2e-3 * Math.min(1, 2 * (1 - seconds / SECONDS))),
  });
  seconds = (performance.now() - begin) / 1000;
  if (i % 50 === 0) {
    console.log(
      `step ${i}  loss ${value.toFixed(3)}  ${((i * BATCH) / seconds).toFixed(0)} images/s  ${Math.max(0, SECONDS - seconds).toFixed(0)} s left`,
    );
  }
}

// The drawing graph: one Euler step with guidance, on the averaged weights.
const state = await trainer.readState();
await trainer.dispose();
const guidance = 2.5;
const none = constantOf([NONE], [1], "int64").expand([batch]);
const [conditional, unconditional] = [label, none].map((y) => model(x, y)) as [Tensor, Tensor];
const clean = unconditional.add(conditional.sub(unconditional).mul(guidance));
const velocity = clean.sub(x).div(
  t
    .neg()
    .add(1)
    .maximum(1 - LATEST),
);
const drawer = await backend.compile(graphOf({ next: x.add(velocity.mul(input("dt", []))) }), {
  weights: (name) => ({ kind: "array", array: state[emaPrefix + name]! }),
});

const STEPS = 40;
const COLUMNS = 8;
const many = CLASSES * COLUMNS;
let images: NdArray = drawNormal(fork(seed, "drawing"), [many, 1, SIZE, SIZE]);
const wanted = Array.from({ length: many }, (_, i) => Math.floor(i / COLUMNS));
for (let i = 0; i < STEPS; i++) {
  const { next } = await drawer.run({
    x: images,
    time: ndarray("float32", [many], new Float32Array(many).fill(i / STEPS)),
    label: ndarray("int64", [many], wanted),
    dt: ndarray("float32", [], [1 / STEPS]),
  });
  images = next!;
}
await drawer.dispose();

// One row a digit.
const sheet = new Uint8Array(many * SIZE ** 2);
for (const [i, value] of (images.data as Float32Array).entries()) {
  const [image, row, column] = [Math.floor(i / SIZE ** 2), Math.floor(i / SIZE) % SIZE, i % SIZE];
  const [top, left] = [Math.floor(image / COLUMNS) * SIZE + row, (image % COLUMNS) * SIZE + column];
  sheet[top * COLUMNS * SIZE + left] = Math.max(0, Math.min(255, 127.5 * (value + 1)));
}
const raw = { width: COLUMNS * SIZE, height: CLASSES * SIZE, channels: 1 } as const;
await sharp(sheet, { raw })
  .resize({ width: 2 * raw.width, kernel: "nearest" })
  .png()
  .toFile("digits.png");
console.log("Drew digits.png: one row for each digit from 0 to 9.");
