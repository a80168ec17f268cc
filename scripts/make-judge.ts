/**
 * Computes the judge of `patchwise evaluate` and writes models/judge, in a few minutes on one thread:
 *
 *   node scripts/run.mjs scripts/make-judge.ts
 *
 * The judge is fitted on all styles of the captioned emoji but one, and its accuracy on that one is measured by the same code
 * as a model's. Each picture is used as it is and in three damaged versions: shifted, scaled, rotated, blurred and noisy, like
 * drawings of a generator. Colours change very little, because they distinguish emoji.
 */
import { mkdir } from "node:fs/promises";
import {
  judgeFigures,
  listRealEmoji,
  realEmoji,
  unseenStyle,
} from "../src/comparison/emoji-gallery-node.ts";
import { castArray, type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { input } from "../src/engine/graph/functional.ts";
import { graphOf } from "../src/engine/graph/graph.ts";
import { batch } from "../src/engine/graph/shape.ts";
import { fork, normal as gaussian, randomKey, uniform } from "../src/engine/random/random.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { openExtractor } from "../src/evaluation/extractor.ts";
import { descriptionWidth, judgeShape, traceJudge } from "../src/evaluation/judge.ts";
import { valuesOf } from "../src/pictures/picture.ts";
import { writeSafetensors } from "../src/weights/safetensors/file-node.ts";
import { orthonormalise } from "./orthonormalise.ts";

const FILE = "models/judge/judge.safetensors";
/** The number of versions of each picture, and of pictures per batch. */
const [FORMS, RUN] = [4, 256];
/** The width of the projection, and that of the slightly larger subspace of the iteration. */
const [WIDTH, SOUGHT] = [128, 160];
/** The regularization of the covariance within emoji, relative to its mean. */
const RIDGE = 0.05;
const SIDE = judgeShape.width;
const BYTES = SIDE * SIDE * 3;
const D = descriptionWidth;

const backend = nodeBackend("cpu");
const key = randomKey(0);
// One long array of noise, of which each example uses a slice.
const noises = gaussian(fork(key, "noise"), [1 << 20]).data;
const set = await realEmoji(await listRealEmoji(), (done, of) => {
  if (done % 1024 === 0) console.log(`drew ${done} of ${of} real pictures`);
});
const known = set.pictures.flatMap(({ style }, i) => (style === unseenStyle ? [] : [i]));
const names = [...new Set(known.map((index) => set.pictures[index]!.hexcode))];
const classOf = new Map(names.map((name, i) => [name, i]));
console.log(`${known.length} pictures of ${names.length} emoji, in ${FORMS} forms each`);

const fixed = fixedFilters();
const { within, means, mean } = await scatter();
console.log("factorising");
const lower = cholesky(within);
const whitened = new Float32Array(names.length * D);
for (let c = 0; c < names.length; c++) {
  const row = means.subarray(c * D, (c + 1) * D).map((value, k) => value - mean[k]!);
  whitened.set(forwardSolved(lower, row), c * D);
}
console.log("seeking the directions in which emoji differ most");
const directions = await principal(whitened, names.length);
const projection = new Float32Array(WIDTH * D);
const bias = new Float32Array(WIDTH);
for (let i = 0; i < WIDTH; i++) {
  const direction = backwardSolved(lower, directions[i]!);
  projection.set(direction, i * D);
  bias[i] = -direction.reduce((sum, value, k) => sum + value * mean[k]!, 0);
}
// Features are normalized after the projection, so it can be scaled to the range of float16.
const scale = 1 / projection.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const stored = Object.entries({
  ...fixed,
  "projection.weight": ndarray(
    "float32",
    [WIDTH, D],
    projection.map((value) => value * scale),
  ),
  "projection.bias": ndarray(
    "float32",
    [WIDTH],
    bias.map((value) => value * scale),
  ),
}).map(([name, array]) => [name, castArray(array, "float16")] as const);
await mkdir("models/judge", { recursive: true });
await writeSafetensors(FILE, stored, [["format", "pt"]]);

const weights = stored.map(([name, array]) => [name, castArray(array, "float32")] as const);
const judge = await openExtractor(backend, traceJudge(), Object.fromEntries(weights));
const { features } = await judge.extractFeatures(set.pixels);
console.log(JSON.stringify(await judgeFigures(judge, set, features), null, 2));
await judge.dispose();

/** The fixed filters: gradients in eight directions of brightness and two colour differences. */
function fixedFilters(): Record<string, NdArray> {
  const mixes = [
    [0.299, 0.587, 0.114],
    [1, -1, 0],
    [0.5, 0.5, -1],
  ] as const;
  const gradients = new Float32Array(24 * 27);
  for (const [m, mix] of mixes.entries()) {
    for (let direction = 0; direction < 8; direction++) {
      const angle = (2 * Math.PI * direction) / 8;
      for (const [c, share] of mix.entries()) {
        const at = ((m * 8 + direction) * 3 + c) * 9;
        // Differences of the neighbours across and down; values are in [−1, 1], a range twice as wide as [0, 1].
        gradients[at + 5] = (share * Math.cos(angle)) / 2;
        gradients[at + 3] = -gradients[at + 5]!;
        gradients[at + 7] = (share * Math.sin(angle)) / 2;
        gradients[at + 1] = -gradients[at + 7]!;
      }
    }
  }
  return {
    "gradients.weight": ndarray("float32", [24, 3, 3, 3], gradients),
    "colours.weight": ndarray(
      "float32",
      [3, 3, 1, 1],
      mixes.flat().map((share) => share / 2),
    ),
  };
}

/** The regularized covariance within emoji, and the mean description of each emoji and of all. */
async function scatter() {
  const { description } = traceJudge();
  const product = description.swapAxes(0, 1).matmul(description);
  const program = await backend.compile(graphOf({ description, product }), {
    weights: (name) => fixed[name] && { kind: "array", array: fixed[name] },
  });
  const total = new Float64Array(D * D);
  const sums = new Float64Array(names.length * D);
  const counts = new Float64Array(names.length);
  const examples = known.flatMap((index) =>
    Array.from({ length: FORMS }, (_, form) => ({ index, form })),
  );
  for (let from = 0; from < examples.length; from += RUN) {
    const some = examples.slice(from, from + RUN);
    const pixels = new Uint8Array(some.length * BYTES);
    for (const [i, { index, form }] of some.entries()) {
      const own = set.pixels.subarray(index * BYTES, (index + 1) * BYTES);
      const shown = form === 0 ? own : augmented(own, fork(fork(key, index), form));
      pixels.set(shown, i * BYTES);
    }
    const result = await program.run({ image: valuesOf(pixels, judgeShape) });
    const [products, rows] = [result["product"]!.data, result["description"]!.data];
    for (let k = 0; k < total.length; k++) total[k]! += products[k] as number;
    for (const [i, { index }] of some.entries()) {
      const c = classOf.get(set.pictures[index]!.hexcode)!;
      counts[c]!++;
      for (let k = 0; k < D; k++) sums[c * D + k]! += rows[i * D + k] as number;
    }
    if (from % (16 * RUN) === 0) console.log(`described ${from} of ${examples.length}`);
  }
  await program.dispose();
  const averages = sums.map((sum, at) => sum / counts[Math.floor(at / D)]!);
  // Total = within + between: Σ f·fᵀ − Σ n·m·mᵀ.
  const weighted = averages.map((value, at) => value * Math.sqrt(counts[Math.floor(at / D)]!));
  const between = await gram(Float32Array.from(weighted), names.length);
  const covariance = total.map((value, k) => (value - between[k]!) / examples.length);
  const trace = Array.from({ length: D }, (_, k) => covariance[k * D + k]!).reduce(
    (a, b) => a + b,
    0,
  );
  for (let k = 0; k < D; k++) covariance[k * D + k]! += (RIDGE * trace) / D;
  const centre = new Float64Array(D);
  for (let c = 0; c < names.length; c++) {
    for (let k = 0; k < D; k++) centre[k]! += averages[c * D + k]! / names.length;
  }
  return { within: covariance, means: averages, mean: centre };
}

/** Aᵀ·A of a matrix [rows, D]. */
async function gram(matrix: Float32Array, rows: number): Promise<Float32Array> {
  const a = input("a", [batch, D]);
  const program = await backend.compile(graphOf({ product: a.swapAxes(0, 1).matmul(a) }));
  const { product } = await program.run({ a: ndarray("float32", [rows, D], matrix) });
  await program.dispose();
  return product!.data as Float32Array;
}

/** The Cholesky factor L of a symmetric positive definite matrix A = L·Lᵀ. */
function cholesky(a: Float64Array): Float64Array {
  const l = new Float64Array(D * D);
  for (let i = 0; i < D; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * D + j]!;
      for (let k = 0; k < j; k++) sum -= l[i * D + k]! * l[j * D + k]!;
      l[i * D + j] = i === j ? Math.sqrt(sum) : sum / l[j * D + j]!;
    }
  }
  return l;
}

/** Solves L·x = b. */
function forwardSolved(l: Float64Array, b: Float64Array): Float64Array {
  const x = Float64Array.from(b);
  for (let i = 0; i < D; i++) {
    let sum = x[i]!;
    for (let k = 0; k < i; k++) sum -= l[i * D + k]! * x[k]!;
    x[i] = sum / l[i * D + i]!;
  }
  return x;
}

/** Solves Lᵀ·x = b. */
function backwardSolved(l: Float64Array, b: Float64Array): Float64Array {
  const x = Float64Array.from(b);
  for (let i = D - 1; i >= 0; i--) {
    x[i]! /= l[i * D + i]!;
    for (let k = 0; k < i; k++) x[k]! -= x[i]! * l[i * D + k]!;
  }
  return x;
}

/** The principal directions of rows [count, D] in descending order, by subspace iteration. */
async function principal(rows: Float32Array, count: number): Promise<Float64Array[]> {
  const spread = ndarray("float32", [D, D], await gram(rows, count));
  const [a, q] = [input("a", [D, D]), input("q", [D, SOUGHT])];
  const program = await backend.compile(graphOf({ next: a.matmul(q) }));
  let columns = Array.from({ length: SOUGHT }, (_, i) =>
    Float64Array.from(gaussian(fork(fork(key, "directions"), i), [D]).data),
  );
  for (let round = 0; round < 30; round++) {
    orthonormalise(columns);
    const values = new Float32Array(D * SOUGHT);
    for (const [i, column] of columns.entries()) {
      for (let k = 0; k < D; k++) values[k * SOUGHT + i] = column[k]!;
    }
    const { next } = await program.run({ a: spread, q: ndarray("float32", [D, SOUGHT], values) });
    const data = next!.data as Float32Array;
    columns = columns.map((_, i) =>
      Float64Array.from({ length: D }, (__, k) => data[k * SOUGHT + i]!),
    );
  }
  await program.dispose();
  orthonormalise(columns);
  return columns;
}

/** Damages a picture as a generator might. */
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
    // A patch of one colour, in place of a part that a generator draws wrong.
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

/** Averages each value with those `by` places before and after it, weighted 1-2-1. */
function blurred(values: Float32Array, by: number): Float32Array {
  const result = new Float32Array(values);
  for (let i = by; i < values.length - by; i++) {
    result[i] = (values[i - by]! + 2 * values[i]! + values[i + by]!) / 4;
  }
  return result;
}
