/** The network of the bundled model of clips, and its first weights: those of the bundled model of still pictures, made smaller. */
import type { Recipe } from "../../src/diffusion/recipe.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { type NetworkConfig, networkSchema } from "../../src/models/network.ts";
import type { PromptEncoderConfig } from "../../src/models/text-encoders/prompt-encoder.ts";
import type { DiTConfig } from "../../src/models/dit/config.ts";
import { POSE } from "../../src/models/video-dit/moving-canvas.ts";
import { type MotionName, motionNames, poseAt } from "../../src/data/motions.ts";
import { WIDTH } from "../emoji/codes.ts";
import {
  network as still,
  promptEncoderOf as stillPromptEncoder,
  recipe as ofStills,
} from "../emoji/network.ts";
import { FRAMES, PERIOD } from "./clips.ts";

const HEAD = 64;
/** Units of a feed-forward layer, of the 682 of the still model; the ones with the largest weights are kept. */
const UNITS = 640;
/** Pairs of a head's channels that time, rows and columns turn. */
const PAIRS = [4, 14, 14] as const;
/** Pairs for rows and as many for columns in the still model, of which the slowest become those for time. */
const STILL_PAIRS = 16;

/** The network without the encoder of prompts: its condition is one token, the code and the shares of the motions. */
export function networkOf(depth: number): NetworkConfig {
  const { canvas, block: _block, ...others } = still as unknown as DiTConfig;
  return networkSchema().parse({
    ...others,
    kind: "video-dit",
    depth,
    frames: FRAMES,
    framePatch: 1,
    mlpRatio: (1.5 * UNITS) / 256,
    condition: { kind: "text", width: WIDTH + motionNames.length, length: 1 },
    canvas: { ...canvas, motions: motionNames.length, period: PERIOD },
    positions: { kind: "none" },
    // Rows and columns turn at the frequencies of the still model.
    rotary: { theta: 100 ** (PAIRS[1] / STILL_PAIRS), pairs: PAIRS },
  });
}

/** The prompt encoder beside it: one style, no companions, and the motions. */
export function promptEncoderOf(vocabulary: number, subjects: number): PromptEncoderConfig {
  const config = stillPromptEncoder(vocabulary, subjects);
  const prior = { ...config.prior!, styles: 1, companions: false, motions: motionNames.length };
  return { ...config, prior };
}

/** That of the still model, with levels of noise for each frame. */
export const recipe = {
  ...ofStills,
  frameLevels: { equal: 0.5, firstClean: 0.25, independent: 0.25 },
} as Recipe;

type Arrays = Readonly<Record<string, NdArray>>;

/**
 * The weights of the network, from those of the still model.
 *
 * @param blocks the blocks that are kept, in order
 */
export function weightsFromStills(stored: Arrays, blocks: readonly number[]): Arrays {
  const weights: Record<string, NdArray> = {};
  for (const [name, array] of Object.entries(stored)) {
    const [, block, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
    if (block === undefined) {
      if (!name.startsWith("prompt_encoder.")) weights[name] = array;
      continue;
    }
    const at = blocks.indexOf(Number(block));
    if (at >= 0) weights[`blocks.${at}.${rest}`] = array;
  }
  for (const [i] of blocks.entries()) {
    const own = (name: string) => `blocks.${i}.${name}`;
    for (const name of [
      "attn.qkv.weight",
      "attn.qkv.bias",
      "attn.q_norm.weight",
      "attn.k_norm.weight",
    ]) {
      weights[own(name)] = turned(weights[own(name)]!);
    }
    Object.assign(weights, pruned(weights, own("mlp")));
  }
  const patches = weights["x_embedder.proj1.weight"]!;
  const [outputs, channels, ...sides] = patches.shape;
  weights["x_embedder.proj1.weight"] = ndarray(
    "float32",
    [outputs!, channels!, 1, ...sides],
    patches.data as Float32Array,
  );
  for (const name of ["y_embedder.y_proj.fc1.weight", "y_embedder.null"]) {
    weights[name] = widened(weights[name]!, motionNames.length);
  }
  return { ...weights, "canvas.poses": poseTable() };
}

/** Rows of queries and keys, or the scales of their norms, with the channels of each head in the order of the axes of clips. */
function turned(array: NdArray): NdArray {
  const slowest = [PAIRS[1], PAIRS[1] + 1];
  const range = Array.from({ length: PAIRS[1] }, (_, i) => i);
  const order = [
    ...slowest,
    ...slowest.map((pair) => STILL_PAIRS + pair),
    ...range,
    ...range.map((pair) => STILL_PAIRS + pair),
  ].flatMap((pair) => [2 * pair, 2 * pair + 1]);
  const rows = array.shape[0]!;
  // A third of joined queries, keys and values are values, which are not rotated.
  const rotated = rows === HEAD ? rows : (2 * rows) / 3;
  return withRows(array, (row) => (row < rotated ? row - (row % HEAD) + order[row % HEAD]! : row));
}

/** A feed-forward layer with fewer units. */
function pruned(weights: Arrays, name: string): Arrays {
  const [inner, innerBias, outer] = ["w12.weight", "w12.bias", "w3.weight"].map(
    (each) => weights[`${name}.${each}`]!,
  ) as [NdArray, NdArray, NdArray];
  const units = inner.shape[0]! / 2;
  const width = inner.shape[1]!;
  const size = (row: number) => {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += Number(inner.data[row * width + k]) ** 2;
    return sum;
  };
  const leaving = (unit: number) => {
    let sum = 0;
    for (let k = 0; k < outer.shape[0]!; k++) sum += Number(outer.data[k * units + unit]) ** 2;
    return sum;
  };
  const kept = Array.from({ length: units }, (_, unit) => ({
    unit,
    weight: size(unit) * size(units + unit) * leaving(unit),
  }))
    .sort((one, other) => other.weight - one.weight)
    .slice(0, UNITS)
    .map(({ unit }) => unit)
    .sort((one, other) => one - other);
  const rows = [...kept, ...kept.map((unit) => units + unit)];
  const [outputs] = outer.shape as [number];
  const columns = new Float32Array(outputs * UNITS);
  for (let row = 0; row < outputs; row++) {
    for (const [k, unit] of kept.entries()) {
      columns[row * UNITS + k] = Number(outer.data[row * units + unit]);
    }
  }
  return {
    [`${name}.w12.weight`]: withRows(inner, (row) => rows[row]!, rows.length),
    [`${name}.w12.bias`]: withRows(innerBias, (row) => rows[row]!, rows.length),
    [`${name}.w3.weight`]: ndarray("float32", [outputs, UNITS], columns),
  };
}

/** An array whose row i is row `from(i)` of another. */
function withRows(
  array: NdArray,
  from: (row: number) => number,
  rows = array.shape[0]!,
): NdArray<"float32"> {
  const others = array.shape.slice(1);
  const width = others.reduce((all, side) => all * side, 1);
  const values = new Float32Array(rows * width);
  const data = array.data as Float32Array;
  for (let row = 0; row < rows; row++) {
    values.set(data.subarray(from(row) * width, (from(row) + 1) * width), row * width);
  }
  return ndarray("float32", [rows, ...others], values);
}

/** An array whose rows end with zeros. */
function widened(array: NdArray, by: number): NdArray<"float32"> {
  const width = array.shape.at(-1)!;
  const rows = array.data.length / width;
  const values = new Float32Array(rows * (width + by));
  const data = array.data as Float32Array;
  for (let row = 0; row < rows; row++) {
    values.set(data.subarray(row * width, (row + 1) * width), row * (width + by));
  }
  return ndarray("float32", [...array.shape.slice(0, -1), width + by], values);
}

/** The poses of every motion in the frames of its period, as a moving canvas takes them: [motions, period · 7]. */
function poseTable(): NdArray<"float32"> {
  const rows = motionNames.flatMap((motion) =>
    Array.from({ length: PERIOD }, (_, frame) => poseNumbers(motion, frame / PERIOD)),
  );
  return ndarray("float32", [motionNames.length, PERIOD * POSE], rows.flat());
}

export function poseNumbers(motion: MotionName, time: number): readonly number[] {
  const { right = 0, down = 0, turned: turns = 0, scale = 1, visible = 1 } = poseAt(motion, time);
  const angle = 2 * Math.PI * turns;
  const [cos, sin] = [Math.cos(angle) / scale, Math.sin(angle) / scale];
  return [cos, sin, -(cos * right + sin * down), -sin, cos, sin * right - cos * down, visible];
}
