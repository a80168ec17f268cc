/**
 * Trains the network of the bundled model of clips, which draws emoji in motion from their codes, for a number of minutes:
 *
 *   node scripts/run.mjs scripts/motion/train-clips.ts --out runs/motion --minutes 60
 *
 * It begins with half of the blocks of the bundled model of still pictures, whose code of pictures it keeps. The same command goes on
 * where an earlier one ended.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { drawExamples, recipeLoss } from "../../src/diffusion/recipe.ts";
import { type NdArray, ndarray, scalar } from "../../src/engine/arrays/ndarray.ts";
import { concat, full, input } from "../../src/engine/graph/functional.ts";
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
import type { VideoDiTConfig } from "../../src/models/video-dit/config.ts";
import { videoDiT } from "../../src/models/video-dit/video-dit.ts";
import { createParams } from "../../src/nn/params.ts";
import { type MotionName, motionNames } from "../../src/data/motions.ts";
import { averagesIn } from "../../src/training/loop.ts";
import { configuredOptimizer, rateAt } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { coarse, WIDTH } from "../emoji/codes.ts";
import { codeOfCanvas } from "../emoji/network.ts";
import {
  colours,
  type Drawing,
  drawings,
  recoloured,
  SIDE,
  styles,
  VALUES,
  writeValues,
} from "../emoji/pictures.ts";
import { readArrays } from "../emoji/stored.ts";
import { FRAMES, framesInMotion, isPairHeldOut, onWhite, PERIOD, writeClip } from "./clips.ts";
import { networkOf, recipe, weightsFromStills } from "./network.ts";
import { writeSheet } from "./sheet.ts";

const { values: given } = parseArgs({
  options: {
    out: { type: "string" },
    stills: { type: "string", default: "models/emoji/model.safetensors" },
    blocks: { type: "string", default: "0,4,5" },
    minutes: { type: "string", default: "60" },
    threads: { type: "string", default: "1" },
    batch: { type: "string", default: "8" },
    rate: { type: "string", default: "1e-3" },
    decay: { type: "string", default: "0.5" },
  },
});
const out = given.out!;
const BATCH = Number(given.batch);
const THREADS = Number(given.threads);
const blocks = given.blocks.split(",").map(Number);
/** Shares of clips in the first style, in another colour, without motion and without their code. */
const [FIRST_STYLE, RECOLOURED, STILL, DROPPED] = [0.7, 0.15, 0.1, 0.05];
/** Codes of half of the examples are noisy by up to this much, as codes of a prompt encoder are. */
const CODE_NOISE = 0.3;
const [SAVE_MINUTES, SHEET_MINUTES] = [4, 8];
const MOTIONS = motionNames.length;
const CONDITION = WIDTH + MOTIONS;

await mkdir(out, { recursive: true });
const backend = nodeBackend("cpu");
const all = await drawings();
const known = all.filter(({ heldOut }) => !heldOut);
const first = known.filter(({ style }) => style === styles[0]);
console.log(`${known.length} drawings, ${first.length} of them in the first style`);

const config = networkOf(blocks.length) as unknown as VideoDiTConfig;
const begun = weightsFromStills(await readArrays(given.stills), blocks);
const code = codeOfCanvas(begun);
const fixed: Record<string, NdArray> = Object.fromEntries(
  ["canvas.map.weight", "canvas.map.bias", "canvas.poses"].map((name) => [name, begun[name]!]),
);
const params = createParams();
const { loss, predict, codes } = traced();
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
  emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.995),
  clip: 1,
});
const progressFile = join(out, "progress.json");
const stateFile = join(out, "state.safetensors");
const earlier = existsSync(progressFile)
  ? (JSON.parse(await readFile(progressFile, "utf8")) as {
      step: number;
      seconds: number;
      clips: number;
    })
  : { step: 0, seconds: 0, clips: 0 };
const trainer = await createTrainer(
  backend,
  step,
  earlier.step > 0
    ? { step: earlier.step, state: await readArrays(stateFile) }
    : Object.fromEntries(trainedNames.map((name) => [name, begun[name]!])),
  { weights: arrayWeights(fixed), threads: THREADS },
);

const stopping = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopping.abort());
const total = 60 * Number(given.minutes);
let { step: count, seconds, clips } = earlier;
let [savedAt, shownAt] = [seconds, seconds];
const recent: number[] = [];
while (seconds < total && !stopping.signal.aborted) {
  const began = performance.now();
  const key = fork(fork(randomKey(1), "steps"), count);
  const rate = rateAt(
    {
      rate: Number(given.rate),
      warmUp: 30,
      decay: { kind: "linear", over: Number(given.decay), to: 0.05 },
    },
    count + 1,
    seconds / total,
  );
  const { loss: value } = await trainer.step({ ...exampleBatch(key), rate: scalar(rate) });
  count++;
  clips += BATCH;
  seconds += (performance.now() - began) / 1000;
  recent.push(value);
  if (recent.length > 50) recent.shift();
  if (count % 10 === 0 || count < 5) {
    const mean = recent.reduce((sum, each) => sum + each, 0) / recent.length;
    console.log(
      `step ${count}  clips ${clips}  loss ${mean.toFixed(4)}  ${(clips / seconds).toFixed(2)}/s  rate ${rate.toExponential(2)}  ${(seconds / 60).toFixed(1)} min`,
    );
  }
  if (seconds - savedAt > 60 * SAVE_MINUTES) {
    await save();
    savedAt = seconds;
  }
  if (seconds - shownAt > 60 * SHEET_MINUTES || count === 40) {
    await drawSheet();
    shownAt = seconds;
  }
}
await save();
await drawSheet();
await trainer.dispose();

/** The inputs of a step. */
function exampleBatch(key: RandomKey): Record<string, NdArray> {
  const u = uniform(fork(key, "choices"), [BATCH, 9]).data;
  const examples = Array.from({ length: BATCH }, (_, i) => {
    const [style, subject, colour, which, still, motion, start] = u.subarray(
      9 * i,
    ) as unknown as number[];
    const drawn = style! < FIRST_STYLE ? first : known;
    let at = Math.floor(subject! * drawn.length);
    const name = still! < STILL ? "stay" : motionNames[Math.floor(motion! * (MOTIONS - 1))]!;
    while (isPairHeldOut(drawn[at]!.hexcode, name)) at = (at + 1) % drawn.length;
    const { rgba } = drawn[at]!;
    return {
      rgba:
        colour! < RECOLOURED
          ? recoloured(rgba, colours[Math.floor(which! * colours.length)]!)
          : rgba,
      motion: name,
      start: Math.floor(start! * PERIOD),
    };
  });
  const noise = normal(fork(key, "code noise"), [BATCH, 1, WIDTH]);
  const drop = new Uint8Array(BATCH);
  for (let i = 0; i < BATCH; i++) {
    const [dropped, noisy] = u.subarray(9 * i + 7) as unknown as number[];
    drop[i] = dropped! < DROPPED ? 1 : 0;
    const spread = Math.max(0, 2 * noisy! - 1) * CODE_NOISE;
    for (let k = 0; k < WIDTH; k++) noise.data[i * WIDTH + k]! *= spread;
  }
  const batchOf = clipBatch(examples);
  return {
    ...batchOf,
    ...drawExamples(recipe, fork(key, "diffusion"), batchOf["x0"]!.shape, { times: FRAMES }),
    codeNoise: noise,
    drop: ndarray("bool", [BATCH], drop),
  };
}

interface Example extends Pick<Drawing, "rgba"> {
  readonly motion: MotionName;
  readonly start: number;
}

/** The clips of a batch, the stills that they move, the shares of the motions, and where in the motion they begin. */
function clipBatch(examples: readonly Example[]): Record<string, NdArray> {
  const n = examples.length;
  const x0 = new Float32Array(n * FRAMES * VALUES);
  const stills = new Float32Array(n * VALUES);
  const shares = new Float32Array(n * MOTIONS);
  for (const [i, { rgba, motion, start }] of examples.entries()) {
    writeClip(framesInMotion(onWhite(rgba), motion, start), x0, i * FRAMES * VALUES);
    writeValues(rgba, stills, i * VALUES);
    shares[i * MOTIONS + motionNames.indexOf(motion)] = 1;
  }
  return {
    x0: ndarray("float32", [n, 3, FRAMES, SIDE, SIDE], x0),
    still: ndarray("float32", [n, 3, SIDE, SIDE], stills),
    motion: ndarray("float32", [n, 1, MOTIONS], shares),
    start: ndarray(
      "float32",
      [n],
      examples.map(({ start }) => start),
    ),
  };
}

function traced() {
  const x0 = input("x0", [batch, 3, FRAMES, SIDE, SIDE]);
  const [start, motion] = [input("start", [batch]), input("motion", [batch, 1, MOTIONS])];
  const own = coarse(input("still", [batch, 3, SIDE, SIDE]))
    .linear(constantTable("code.encode", code.encode), constantTable("code.bias", code.bias))
    .unsqueeze(1);
  const noisy = own.add(input("codeNoise", [batch, 1, WIDTH]));
  const y = concat([noisy, motion], 2);
  const drop = input("drop", [batch], "bool");
  const losses = recipeLoss(
    recipe,
    x0,
    (x, t) => videoDiT(params, { x, t, y, drop, start }, config),
    false,
    undefined,
    FRAMES,
  );
  const [x, t, condition] = [
    input("x", [batch, 3, FRAMES, SIDE, SIDE]),
    input("t", [batch, FRAMES]),
    input("y", [batch, 1, CONDITION]),
  ];
  const alone = full([condition.dim(0)], 0, "bool");
  return {
    loss: losses.mean(),
    predict: videoDiT(params, { x, t, y: condition, drop: alone, start }, config),
    codes: concat([own, motion], 2),
  };
}

/** A stored weight of the graph, which is given as an array and not trained. */
function constantTable(name: string, array: NdArray) {
  Object.assign(fixed, { [name]: array });
  return params.param(name, array.shape, { kind: "constant", value: 0 });
}

/** Draws known and held-out emoji in each motion from their codes, beside the real clips, with the averaged weights. */
async function drawSheet(): Promise<void> {
  const averages = averagesIn(await trainer.readState());
  const weights = arrayWeights({ ...fixed, ...averages });
  const [program, encoder] = (await Promise.all(
    [{ predict }, { codes }].map((outputs) =>
      backend.compile(graphOf(outputs), { weights, threads: THREADS }),
    ),
  )) as [Awaited<ReturnType<typeof backend.compile>>, Awaited<ReturnType<typeof backend.compile>>];
  const heldOut = all.filter((each) => each.heldOut);
  const shown = motionNames.flatMap((motion, i) =>
    [known[7 + 331 * i]!, heldOut[3 + 11 * i]!].map(({ rgba }, k) => ({
      rgba,
      motion,
      start: k === 0 ? 0 : 4,
    })),
  );
  const { x0, still, motion, start } = clipBatch(shown);
  const { codes: y } = await encoder.run({ still: still!, motion: motion! });
  const n = shown.length;
  const x = normal(fork(randomKey(5), "sheet"), [n, 3, FRAMES, SIDE, SIDE]);
  const STEPS = 8;
  for (let i = 0; i < STEPS; i++) {
    const [at, next] = [1 - i / STEPS, 1 - (i + 1) / STEPS];
    const t = ndarray("float32", [n, FRAMES], new Array<number>(n * FRAMES).fill(1000 * at));
    const clean = (await program.run({ x, t, y: y!, start: start! }))["predict"]!
      .data as Float32Array;
    for (let k = 0; k < x.data.length; k++)
      x.data[k] = clean[k]! + (next / at) * (x.data[k]! - clean[k]!);
  }
  await program.dispose();
  await encoder.dispose();
  await writeSheet(join(out, `sheet-${String(count).padStart(6, "0")}.png`), [x0!, x]);
}

async function save(): Promise<void> {
  const state = await trainer.readState();
  await writeSafetensors(stateFile, Object.entries(state), []);
  const kept = Object.entries(fixed).filter(([name]) => !name.startsWith("code."));
  await writeSafetensors(
    join(out, "averages.safetensors"),
    [...Object.entries(averagesIn(state)), ...kept],
    [],
  );
  await writeFileAtomic(
    progressFile,
    new TextEncoder().encode(JSON.stringify({ step: count, seconds, clips, blocks })),
  );
}
