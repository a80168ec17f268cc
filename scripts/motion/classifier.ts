/**
 * The classifier of motions: from the differences between the frames of a clip it says which motion it shows. It is trained on real clips, and knows
 * nothing of the model that it judges.
 */
import { existsSync } from "node:fs";
import { type NdArray, ndarray, scalar } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch, batchTimes } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { fork, randomKey, type RandomKey, uniform } from "../../src/engine/random/random.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { type MotionName, motionNames } from "../../src/data/motions.ts";
import { conv2d } from "../../src/nn/convolutions.ts";
import { linear } from "../../src/nn/linear.ts";
import { createParams, initialize, type Params } from "../../src/nn/params.ts";
import { averagesIn } from "../../src/training/loop.ts";
import { adamW } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { type Drawing, SIDE } from "../emoji/pictures.ts";
import { readArrays } from "../emoji/stored.ts";
import { framesInMotion, onWhite, PERIOD } from "./clips.ts";

/** Side of the differences, of which each is the mean of a square of pixels. */
const SEEN = 32;
const BY = SIDE / SEEN;
const DIFFERENCES = PERIOD - 1;
const AREA = SEEN * SEEN;

/** A real clip of one period. */
export interface RealClip {
  readonly frames: readonly ArrayLike<number>[];
  readonly motion: MotionName;
}

/** A real clip of a random drawing and motion. */
function realClip(drawings: readonly Drawing[], u: ArrayLike<number>): RealClip {
  const { rgba } = drawings[Math.floor(u[0]! * drawings.length)]!;
  const motion = motionNames[Math.floor(u[1]! * motionNames.length)]!;
  const start = Math.floor(u[2]! * PERIOD);
  return { motion, frames: framesInMotion(onWhite(rgba), motion, start, PERIOD) };
}

/** The differences between the brightness of neighbouring frames, about in [−1, 1]: [count, 15, 32, 32]. */
function differences(clips: readonly (readonly ArrayLike<number>[])[]): NdArray<"float32"> {
  const values = new Float32Array(clips.length * DIFFERENCES * AREA);
  for (const [row, frames] of clips.entries()) {
    const seen = frames.map(coarseBrightness);
    for (let i = 0; i < DIFFERENCES; i++) {
      const at = (row * DIFFERENCES + i) * AREA;
      for (let k = 0; k < AREA; k++) values[at + k] = seen[i + 1]![k]! - seen[i]![k]!;
    }
  }
  return ndarray("float32", [clips.length, DIFFERENCES, SEEN, SEEN], values);
}

function coarseBrightness(pixels: ArrayLike<number>): Float32Array {
  const sum = new Float32Array(AREA);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const at = Math.floor(y / BY) * SEEN + Math.floor(x / BY);
      for (let c = 0; c < 3; c++) sum[at]! += pixels[(y * SIDE + x) * 3 + c]!;
    }
  }
  return sum.map((value) => value / (3 * BY * BY * 255));
}

/** Logits of the motions: [B, 15, 32, 32] → [B, motions]. Each difference goes through the same convolutions. */
function logitsOf(p: Params, x: Tensor): Tensor {
  let h = x.reshape([batchTimes(DIFFERENCES), 1, SEEN, SEEN]);
  for (const [i, width] of [8, 16, 32].entries()) {
    h = conv2d(p.at(`conv${i}`), h, width, 3, { stride: 2 }).relu();
  }
  const each = linear(p.at("place"), h.reshape([batchTimes(DIFFERENCES), 32 * 16]), 24).relu();
  const all = each.reshape([batch, DIFFERENCES * 24]);
  return linear(p.at("head"), linear(p.at("hidden"), all, 64).relu(), motionNames.length);
}

/** The motions that clips show. */
export type Classify = (
  clips: readonly (readonly ArrayLike<number>[])[],
) => Promise<readonly MotionName[]>;

const BATCH = 32;

/**
 * Opens the classifier of a file, which is trained first where there is none.
 *
 * @param known the drawings to learn from
 */
export async function openClassifier(
  backend: Backend,
  file: string,
  known: readonly Drawing[],
  steps: number,
): Promise<Classify> {
  const params = createParams();
  const x = input("x", [batch, DIFFERENCES, SEEN, SEEN]);
  const logits = logitsOf(params, x);
  if (!existsSync(file)) {
    const right = input("right", [batch, motionNames.length]);
    const step = trainingStep({
      loss: logits.logSoftmax(-1).mul(right).sum(1).neg().mean(),
      params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
      optimizer: adamW({ learningRate: input("rate", []), weightDecay: 0.01 }),
      emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.98),
      clip: 1,
    });
    const trainer = await createTrainer(backend, step, initialize(params, randomKey(8)), {
      threads: 1,
    });
    let mean = 0;
    for (let s = 0; s < steps; s++) {
      const clips = realClips(known, fork(fork(randomKey(9), "clips"), s), BATCH);
      const { loss } = await trainer.step({
        x: differences(clips.map(({ frames }) => frames)),
        right: oneHot(clips),
        rate: scalar(2e-3 * Math.min(1, (s + 1) / 20) * (1 - (0.95 * s) / steps)),
      });
      mean = s === 0 ? loss : 0.95 * mean + 0.05 * loss;
      if ((s + 1) % 20 === 0) console.log(`classifier: step ${s + 1}, loss ${mean.toFixed(3)}`);
    }
    await writeSafetensors(file, Object.entries(averagesIn(await trainer.readState())), []);
    await trainer.dispose();
  }
  const program = await backend.compile(graphOf({ logits }), {
    weights: arrayWeights(await readArrays(file)),
    threads: 1,
  });
  return async (clips) => {
    const found: MotionName[] = [];
    for (let from = 0; from < clips.length; from += BATCH) {
      const { logits: each } = await program.run({
        x: differences(clips.slice(from, from + BATCH)),
      });
      const width = motionNames.length;
      for (let row = 0; row < each!.shape[0]!; row++) {
        const own = (each!.data as Float32Array).subarray(row * width, (row + 1) * width);
        found.push(motionNames[own.indexOf(Math.max(...own))]!);
      }
    }
    return found;
  };
}

/** Real clips of random drawings in random motions. */
export function realClips(drawings: readonly Drawing[], key: RandomKey, count: number): RealClip[] {
  const u = uniform(key, [count, 3]).data;
  return Array.from({ length: count }, (_, i) => realClip(drawings, u.subarray(3 * i)));
}

function oneHot(clips: readonly RealClip[]): NdArray<"float32"> {
  const values = new Float32Array(clips.length * motionNames.length);
  for (const [i, { motion }] of clips.entries()) {
    values[i * motionNames.length + motionNames.indexOf(motion)] = 1;
  }
  return ndarray("float32", [clips.length, motionNames.length], values);
}
