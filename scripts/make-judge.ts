/**
 * Trains the judge of `patchwise evaluate` and writes models/judge:
 *
 *   node scripts/run.mjs scripts/make-judge.ts
 *
 * The network learns to recognise every emoji of the captioned set, whatever its style. It learns from all styles but one,
 * and its figure on that one is measured by the same code as a model's. The examples are shifted, scaled, turned, blurred
 * and made noisy, as drawings of a generator are; colours change very little, since they tell emoji apart.
 */
import { mkdir } from "node:fs/promises";
import { castArray, type NdArray, ndarray, scalar } from "../src/engine/arrays/ndarray.ts";
import { input } from "../src/engine/graph/functional.ts";
import { batch } from "../src/engine/graph/shape.ts";
import { fork, normal as gaussian, randomKey, uniform } from "../src/engine/random/random.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { judgeShape, normalized, openJudge, traceJudge } from "../src/evaluation/judge.ts";
import { initialize, normal } from "../src/nn/params.ts";
import { valuesOf } from "../src/pictures/pixels.ts";
import { adamW } from "../src/training/optimizers/adamw.ts";
import { rateAt } from "../src/training/optimizers/rate.ts";
import { createTrainer, emaPrefix, trainingStep } from "../src/training/step.ts";
import { writeSafetensors } from "../src/weights/safetensors/file-node.ts";
import { judgeFigures, realEmoji, unseenStyle } from "../src/comparison/emoji-gallery-node.ts";

const steps = Number(process.argv[2] ?? 1000);
const [BATCH, RATE, SCALE] = [64, 3e-3, 16];
const SIDE = judgeShape.width;
const BYTES = SIDE * SIDE * 3;

const gallery = await realEmoji((done, of) => {
  if (done % 500 === 0) console.log(`drew ${done} of ${of} real pictures`);
});
const names = [...new Set(gallery.pictures.map(({ hexcode }) => hexcode))];
const classOf = new Map(names.map((name, i) => [name, i]));
const known = gallery.pictures.flatMap(({ style }, i) => (style === unseenStyle ? [] : [i]));
console.log(`${known.length} pictures of ${names.length} emoji`);

const { params, identity } = traceJudge();
const centres = normalized(
  params.param("head.weight", [names.length, identity.size(-1)], normal(0.1)),
);
const label = input("label", [batch], "int64");
const logits = identity.linear(centres).mul(SCALE);
const loss = logits.logSoftmax().mul(label.oneHot(names.length)).sum(-1).mean().neg();
const step = trainingStep({
  loss,
  params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
  optimizer: adamW({ learningRate: input("rate", []), weightDecay: 0.05 }),
  emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.995),
});
const key = randomKey(0);
const backend = nodeBackend("cpu");
const trainer = await createTrainer(backend, step, initialize(params, fork(key, "weights")));
const schedule = { rate: RATE, warmUp: 100, decay: { kind: "cosine", over: 1, to: 0 } } as const;
// One long list of noise, from which each example takes a piece: drawing it anew would take longer than the network.
const noises = gaussian(fork(key, "noise"), [1 << 20]).data;
let mean = 0;
for (let i = 1; i <= steps; i++) {
  const draw = fork(fork(key, "examples"), i);
  const chosen = Array.from(
    uniform(draw, [BATCH]).data,
    (u) => known[Math.floor(u * known.length)]!,
  );
  const pixels = new Uint8Array(BATCH * BYTES);
  for (const [k, index] of chosen.entries()) {
    const own = gallery.pixels.subarray(index * BYTES, (index + 1) * BYTES);
    pixels.set(augmented(own, fork(draw, k)), k * BYTES);
  }
  const labels = chosen.map((index) => BigInt(classOf.get(gallery.pictures[index]!.hexcode)!));
  const rate = scalar(rateAt(schedule, i, (i - 1) / steps));
  const result = await trainer.step({
    image: valuesOf(pixels, judgeShape),
    label: ndarray("int64", [BATCH], BigInt64Array.from(labels)),
    rate,
  });
  mean += (result.loss - mean) / Math.min(50, i);
  if (i % 25 === 0) console.log(`step ${i} of ${steps}, loss ${mean.toFixed(3)}`);
}
const state = await trainer.readState();
await trainer.dispose();
const stored: Record<string, NdArray> = {};
for (const name of traceJudge().params.declared.keys()) {
  stored[name] = castArray(state[emaPrefix + name]!, "float16");
}
await mkdir("models/judge", { recursive: true });
await writeSafetensors("models/judge/judge.safetensors", Object.entries(stored), [
  ["format", "pt"],
]);

const weights = Object.entries(stored).map(
  ([name, array]) => [name, castArray(array, "float32")] as const,
);
const judge = await openJudge(backend, Object.fromEntries(weights));
const figures = await judgeFigures(judge, gallery, await judge.look(gallery.pixels));
console.log(JSON.stringify(figures, null, 2));
await judge.dispose();

/** One picture as a generator might have drawn it. */
function augmented(pixels: Uint8Array, own: ReturnType<typeof randomKey>): Uint8Array {
  const u = uniform(own, [24]).data;
  const between = (i: number, low: number, high: number) => low + u[i]! * (high - low);
  const angle = between(0, -0.15, 0.15);
  const [scaleX, scaleY] = [between(1, 0.87, 1.15), between(2, 0.87, 1.15)];
  const [shiftX, shiftY] = [between(3, -3, 3), between(4, -3, 3)];
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  const half = (SIDE - 1) / 2;
  let values: Float32Array = new Float32Array(BYTES).fill(255);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const [dx, dy] = [(x - half - shiftX) / scaleX, (y - half - shiftY) / scaleY];
      const fromX = cosine * dx + sine * dy + half;
      const fromY = cosine * dy - sine * dx + half;
      const [left, top] = [Math.floor(fromX), Math.floor(fromY)];
      if (left < 0 || top < 0 || left >= SIDE - 1 || top >= SIDE - 1) continue;
      const [wx, wy] = [fromX - left, fromY - top];
      const at = (top * SIDE + left) * 3;
      for (let c = 0; c < 3; c++) {
        const above = pixels[at + c]! * (1 - wx) + pixels[at + c + 3]! * wx;
        const low = at + c + SIDE * 3;
        const below = pixels[low]! * (1 - wx) + pixels[low + 3]! * wx;
        values[(y * SIDE + x) * 3 + c] = above * (1 - wy) + below * wy;
      }
    }
  }
  const passes = u[5]! < 0.5 ? 0 : Math.floor(between(6, 1, 3));
  for (let i = 0; i < passes; i++) values = blurred(blurred(values, 3), 3 * SIDE);
  if (u[7]! < 0.2) {
    // A patch of one colour, as where a generator draws something else.
    const size = Math.floor(between(8, 5, 14));
    const [left, top] = [9, 10].map((k) => Math.floor(between(k, 0, SIDE - size))) as [
      number,
      number,
    ];
    const tone = [255 * u[11]!, 255 * u[12]!, 255 * u[13]!];
    for (let y = top; y < top + size; y++) {
      for (let x = left; x < left + size; x++) values.set(tone, (y * SIDE + x) * 3);
    }
  }
  const from = Math.floor(between(14, 0, noises.length - BYTES));
  const spread = u[15]! < 0.5 ? 0 : 50 * (u[15]! - 0.5);
  const gains = [16, 17, 18].map((k) => between(k, 0.95, 1.05));
  const offsets = [19, 20, 21].map((k) => between(k, -6, 6));
  const result = new Uint8ClampedArray(BYTES);
  for (let i = 0; i < BYTES; i++) {
    result[i] = values[i]! * gains[i % 3]! + offsets[i % 3]! + spread * noises[from + i]!;
  }
  return new Uint8Array(result.buffer);
}

/** The mean of each value with the ones `by` places before and after it, weighted 1-2-1. */
function blurred(values: Float32Array, by: number): Float32Array {
  const result = new Float32Array(values);
  for (let i = by; i < values.length - by; i++) {
    result[i] = (values[i - by]! + 2 * values[i]! + values[i + by]!) / 4;
  }
  return result;
}
