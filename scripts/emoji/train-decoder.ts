/**
 * Trains the network of the bundled model, which draws emoji from their codes, for a number of minutes:
 *
 *   node scripts/run.mjs scripts/emoji/train-decoder.ts --out runs/decoder --minutes 120
 *
 * A picture's code is computed from the picture itself, so no captions are needed, and pictures in other colours or with a
 * second emoji count as much as the originals. The same command goes on where an earlier one ended, and `--from
 * models/emoji/model.safetensors` starts from the weights and the code of a model, whose prompt encoder then still fits.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { drawExamples, recipeLoss } from "../../src/diffusion/recipe.ts";
import { type NdArray, ndarray, scalar } from "../../src/engine/arrays/ndarray.ts";
import { full, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import {
  fork,
  normal,
  randomKey,
  uniform,
  type RandomKey,
} from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import type { DiTConfig } from "../../src/models/dit/config.ts";
import { dit } from "../../src/models/dit/dit.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { averagesIn } from "../../src/training/loop.ts";
import { configuredOptimizer, rateAt } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { type Code, coarse, fitCode, WIDTH } from "./codes.ts";
import { canvasWeights, codeOfCanvas, network, recipe } from "./network.ts";
import {
  colours,
  composed,
  type Drawing,
  drawings,
  recoloured,
  SIDE,
  styles,
  VALUES,
  writeValues,
} from "./pictures.ts";
import { readArrays } from "./stored.ts";

const { values: given } = parseArgs({
  options: {
    out: { type: "string" },
    from: { type: "string" },
    minutes: { type: "string", default: "120" },
    threads: { type: "string", default: "2" },
    batch: { type: "string", default: "96" },
    rate: { type: "string", default: "1.5e-3" },
    decay: { type: "string", default: "0.5" },
  },
});
const out = given.out!;
const BATCH = Number(given.batch);
const THREADS = Number(given.threads);
/** Shares of examples in another colour, with a companion, and without their code. */
const [RECOLOURED, COMPOSED, DROPPED] = [0.15, 0.12, 0.05];
/** Codes of half of the examples are noisy by up to this much, as codes of a prompt encoder are. */
const CODE_NOISE = 0.3;
const SAVE_MINUTES = 4;
const GRID_MINUTES = 10;

await mkdir(out, { recursive: true });
const backend = nodeBackend("cpu");
const all = await drawings();
const known = all.filter(({ heldOut }) => !heldOut);
const byStyle = styles.map((style) => known.filter((each) => each.style === style));
console.log(`${known.length} drawings, ${all.length - known.length} held out`);

const code = await storedCode();
const fixed = canvasWeights(code);
const params = createParams();
const { loss, predict } = traced();
const trainedNames = [...params.declared.keys()].filter((name) => !(name in fixed));
const step = trainingStep({
  loss,
  params: Object.fromEntries(trainedNames.map((name) => [name, params.declared.get(name)!.tensor])),
  optimizer: configuredOptimizer({
    kind: "muon",
    rate: Number(given.rate),
    momentum: 0.95,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weightDecay: 0.01,
  } as Parameters<typeof configuredOptimizer>[0]),
  emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.999),
  clip: 1,
});
const progressFile = join(out, "progress.json");
const stateFile = join(out, "state.safetensors");
const earlier = existsSync(progressFile)
  ? (JSON.parse(await readFile(progressFile, "utf8")) as {
      step: number;
      seconds: number;
      images: number;
    })
  : { step: 0, seconds: 0, images: 0 };
const trainer = await createTrainer(
  backend,
  step,
  earlier.step > 0
    ? { step: earlier.step, state: await readArrays(stateFile) }
    : given.from
      ? picked(await readArrays(given.from), trainedNames)
      : picked(initialize(params, randomKey(0)), trainedNames),
  { weights: arrayWeights(fixed), threads: THREADS },
);

const stopping = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopping.abort());
const total = 60 * Number(given.minutes);
let { step: count, seconds, images } = earlier;
let [savedAt, griddedAt] = [seconds, seconds];
const recent: number[] = [];
while (seconds < total && !stopping.signal.aborted) {
  const began = performance.now();
  const key = fork(fork(randomKey(1), "steps"), count);
  const rate = rateAt(
    {
      rate: Number(given.rate),
      warmUp: 200,
      decay: { kind: "linear", over: Number(given.decay), to: 0.05 },
    },
    count + 1,
    seconds / total,
  );
  const { loss: value } = await trainer.step({ ...exampleBatch(key), rate: scalar(rate) });
  count++;
  images += BATCH;
  seconds += (performance.now() - began) / 1000;
  recent.push(value);
  if (recent.length > 50) recent.shift();
  if (count % 25 === 0) {
    const mean = recent.reduce((sum, each) => sum + each, 0) / recent.length;
    console.log(
      `step ${count}  images ${images}  loss ${mean.toFixed(4)}  ${(images / seconds).toFixed(1)}/s  rate ${rate.toExponential(2)}  ${(seconds / 60).toFixed(1)} min`,
    );
  }
  if (seconds - savedAt > 60 * SAVE_MINUTES) {
    await save();
    savedAt = seconds;
  }
  if (seconds - griddedAt > 60 * GRID_MINUTES || count === 300) {
    await drawGrid();
    griddedAt = seconds;
  }
}
await save();
await drawGrid();
await trainer.dispose();

/** The code, fitted once and kept in the folder. */
async function storedCode(): Promise<Code> {
  const file = join(out, "code.safetensors");
  if (existsSync(file)) return (await readArrays(file)) as unknown as Code;
  if (given.from) {
    // Another fit would have other signs, which the weights do not fit.
    const kept = codeOfCanvas(await readArrays(given.from));
    await writeSafetensors(file, Object.entries(kept), []);
    return kept;
  }
  const batches: NdArray[] = [];
  const key = fork(randomKey(0), "code");
  const shown = known.map((drawing, i) => {
    const u = uniform(fork(key, i), [4]).data;
    return u[0]! < 0.7 ? drawing.rgba : varied(drawing, u[1]! < 0.5, u);
  });
  for (let from = 0; from < shown.length; from += 256) {
    batches.push(batchOf(shown.slice(from, from + 256)));
  }
  const fitted = await fitCode(backend, batches);
  await writeSafetensors(file, Object.entries(fitted), []);
  console.log("fitted the code");
  return fitted;
}

/** A drawing in another colour, or with a companion of its style. */
function varied(drawing: Drawing, colour: boolean, u: ArrayLike<number>): Uint8Array {
  if (colour) return recoloured(drawing.rgba, colours[Math.floor(u[2]! * colours.length)]!);
  const others = byStyle[styles.indexOf(drawing.style)]!;
  return composed(drawing.rgba, others[Math.floor(u[3]! * others.length)]!.rgba);
}

function batchOf(shown: readonly Uint8Array[]): NdArray {
  const values = new Float32Array(shown.length * VALUES);
  for (const [i, rgba] of shown.entries()) writeValues(rgba, values, i * VALUES);
  return ndarray("float32", [shown.length, 3, SIDE, SIDE], values);
}

/** The inputs of a step. */
function exampleBatch(key: RandomKey): Record<string, NdArray> {
  const u = uniform(fork(key, "choices"), [BATCH, 8]).data;
  const shown: Uint8Array[] = [];
  const drop = new Uint8Array(BATCH);
  const noise = normal(fork(key, "code noise"), [BATCH, 1, WIDTH]);
  for (let i = 0; i < BATCH; i++) {
    const [style, subject, form, second, third, dropped, noisy] = u.subarray(
      8 * i,
    ) as unknown as number[];
    const drawn = byStyle[style! < 0.4 ? 0 : 1 + Math.floor((style! - 0.4) / 0.2)]!;
    const drawing = drawn[Math.floor(subject! * drawn.length)]!;
    shown.push(
      form! < RECOLOURED + COMPOSED
        ? varied(drawing, form! < RECOLOURED, [0, 0, second!, third!])
        : drawing.rgba,
    );
    drop[i] = dropped! < DROPPED ? 1 : 0;
    const spread = Math.max(0, 2 * noisy! - 1) * CODE_NOISE;
    for (let k = 0; k < WIDTH; k++) noise.data[i * WIDTH + k]! *= spread;
  }
  const x0 = batchOf(shown);
  return {
    x0,
    ...drawExamples(recipe, fork(key, "diffusion"), x0.shape),
    codeNoise: noise,
    drop: ndarray("bool", [BATCH], drop),
  };
}

function traced() {
  const config = network as unknown as DiTConfig;
  const x0 = input("x0", [batch, 3, SIDE, SIDE]);
  const encoded = coarse(x0)
    .linear(constantTable(code.encode), constantTable(code.bias))
    .unsqueeze(1)
    .add(input("codeNoise", [batch, 1, WIDTH]));
  const drop = input("drop", [batch], "bool");
  const losses = recipeLoss(
    recipe,
    x0,
    (x, t) => dit(params, { x, t, y: encoded, drop }, config),
    false,
  );
  const [x, t, y] = [
    input("x", [batch, 3, SIDE, SIDE]),
    input("t", [batch]),
    input("y", [batch, 1, WIDTH]),
  ];
  return {
    loss: losses.mean(),
    predict: dit(params, { x, t, y, drop: full([y.dim(0)], 0, "bool") }, config),
  };
}

function constantTable(array: NdArray) {
  // A stored weight of the graph, which is given as an array and not trained.
  const name = array === code.encode ? "code.encode" : "code.bias";
  Object.assign(fixed, { [name]: array });
  return params.param(name, array.shape, { kind: "constant", value: 0 });
}

/** Draws 32 known and 16 held-out emoji from their codes, beside the real ones, with the averaged weights. */
async function drawGrid(): Promise<void> {
  const averages = averagesIn(await trainer.readState());
  const program = await backend.compile(graphOf({ predict }), {
    weights: arrayWeights({ ...fixed, ...averages }),
    threads: THREADS,
  });
  const chosen = [
    ...Array.from({ length: 36 }, (_, i) => known[Math.floor(((i + 0.5) * known.length) / 36)]!),
    ...Array.from({ length: 12 }, (_, i) => all.filter(({ heldOut }) => heldOut)[i * 20]!),
  ].filter(Boolean);
  const real = batchOf(chosen.map(({ rgba }) => rgba));
  const x0 = input("x0", [batch, 3, SIDE, SIDE]);
  const encoder = await backend.compile(
    graphOf({
      y: coarse(x0).linear(constantTable(code.encode), constantTable(code.bias)).unsqueeze(1),
    }),
    { weights: arrayWeights(fixed) },
  );
  const y = (await encoder.run({ x0: real }))["y"]!;
  await encoder.dispose();
  const n = chosen.length;
  const x = normal(fork(randomKey(5), "grid"), [n, 3, SIDE, SIDE]);
  const STEPS = 16;
  for (let i = 0; i < STEPS; i++) {
    const [t, next] = [1 - i / STEPS, 1 - (i + 1) / STEPS];
    const clean = (
      await program.run({ x, t: ndarray("float32", [n], new Array<number>(n).fill(1000 * t)), y })
    )["predict"]!.data as Float32Array;
    for (let k = 0; k < x.data.length; k++)
      x.data[k] = clean[k]! + (next / t) * (x.data[k]! - clean[k]!);
  }
  await program.dispose();
  const columns = 12;
  const rows = Math.ceil(n / columns) * 2;
  const image = Buffer.alloc(columns * SIDE * rows * SIDE * 3);
  for (let i = 0; i < n; i++) {
    for (const [part, values] of [real.data, x.data].entries()) {
      const top = (2 * Math.floor(i / columns) + part) * SIDE;
      for (let p = 0; p < SIDE * SIDE; p++) {
        const to =
          ((top + Math.floor(p / SIDE)) * columns * SIDE + (i % columns) * SIDE + (p % SIDE)) * 3;
        for (let c = 0; c < 3; c++) {
          image[to + c] = Math.max(
            0,
            Math.min(
              255,
              Math.round(((values as Float32Array)[i * VALUES + c * SIDE * SIDE + p]! + 1) * 127.5),
            ),
          );
        }
      }
    }
  }
  await sharp(image, { raw: { width: columns * SIDE, height: rows * SIDE, channels: 3 } })
    .png()
    .toFile(join(out, `grid-${String(count).padStart(6, "0")}.png`));
}

/**
 * Returns the loss of the averaged weights on all held-out emoji, each with the code of its own picture, the same noise
 * every time. Beside it stands the loss without a code.
 */
async function heldOutLoss(averages: Record<string, NdArray>) {
  const program = await backend.compile(graphOf({ loss }), {
    weights: arrayWeights({ ...fixed, ...averages }),
    threads: THREADS,
  });
  const heldOut = all.filter((drawing) => drawing.heldOut);
  const sums = { own: 0, none: 0 };
  for (let from = 0; from < heldOut.length; from += BATCH) {
    const shown = heldOut.slice(from, from + BATCH);
    const x0 = batchOf(shown.map(({ rgba }) => rgba));
    const examples = {
      x0,
      ...drawExamples(recipe, fork(fork(randomKey(6), "held out"), from), x0.shape),
      codeNoise: ndarray(
        "float32",
        [shown.length, 1, WIDTH],
        new Float32Array(shown.length * WIDTH),
      ),
    };
    for (const [kind, dropped] of [
      ["own", 0],
      ["none", 1],
    ] as const) {
      const drop = ndarray("bool", [shown.length], new Uint8Array(shown.length).fill(dropped));
      const value = (await program.run({ ...examples, drop }))["loss"]!.data[0] as number;
      sums[kind] += (value * shown.length) / heldOut.length;
    }
  }
  await program.dispose();
  return sums;
}

async function save(): Promise<void> {
  const state = await trainer.readState();
  const { own, none } = await heldOutLoss(averagesIn(state));
  console.log(
    `step ${count}  images ${images}  held-out loss ${own.toFixed(4)}, without codes ${none.toFixed(4)}  ${(seconds / 60).toFixed(1)} min, ${(process.cpuUsage().user / 6e7).toFixed(1)} of the processor in this run`,
  );
  await writeSafetensors(stateFile, Object.entries(state), []);
  await writeSafetensors(
    join(out, "averages.safetensors"),
    Object.entries({ ...averagesIn(state), ...canvasWeights(code) }),
    [],
  );
  await writeFileAtomic(
    progressFile,
    new TextEncoder().encode(JSON.stringify({ step: count, seconds, images })),
  );
}

function picked(
  from: Readonly<Record<string, NdArray>>,
  names: readonly string[],
): Record<string, NdArray> {
  return Object.fromEntries(names.map((name) => [name, from[name]!]));
}
