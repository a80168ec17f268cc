/** The network of the bundled model: a DiT that draws pictures from their codes, and the form of its canvas. */
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import type { Recipe } from "../../src/diffusion/recipe.ts";
import { type NetworkConfig, networkSchema } from "../../src/models/network.ts";
import type { PromptEncoderConfig } from "../../src/models/text-encoders/prompt-encoder.ts";
import { COARSE, type Code, WIDTH } from "./codes.ts";
import { colours, SIDE, styles } from "./pictures.ts";

const PATCH = 8;
/** Patches along a side, and pixels of the coarse picture along a side of one. */
const [PLACES, CELL] = [SIDE / PATCH, (COARSE * PATCH) / SIDE];

/** The network without the encoder of prompts: its condition is one token, the code. */
export const network: NetworkConfig = networkSchema().parse({
  kind: "dit",
  size: [SIDE, SIDE],
  channels: 3,
  patch: PATCH,
  hidden: 256,
  depth: 6,
  heads: 4,
  mlpRatio: 4,
  learnedVariance: false,
  condition: { kind: "text", width: WIDTH, length: 1 },
  canvas: { width: 3 * CELL * CELL },
  block: { kind: "adaLN-zero" },
  patches: { kind: "bottleneck", width: 96 },
  positions: { kind: "sin-cos" },
  rotary: { theta: 100 },
  norm: { kind: "rms", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "swiglu" },
  qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  modulationRank: 96,
});

/** The prompt encoder beside it, for a vocabulary and a number of subjects. */
export function promptEncoderOf(vocabulary: number, subjects: number): PromptEncoderConfig {
  return {
    vocabulary,
    wordWidth: 128,
    width: 192,
    depth: 1,
    heads: 4,
    length: 32,
    prior: {
      code: WIDTH,
      subjects,
      styles: styles.length,
      colours: colours.length,
      hidden: 640,
    },
  };
}

/** JiT's recipe (Li & He, 2025): the network predicts the clean picture, and the loss measures velocities. */
export const recipe: Recipe = {
  process: "flow",
  predicts: "x0",
  weighting: { kind: "space", space: "flow", lowestSigma: 0.05 },
  times: { kind: "logit-normal", mean: 0.8, std: 0.8 },
  shift: 1,
};

/** For each channel of the canvas, patch by patch, its place in the coarse picture [3, 32, 32]. */
function coarsePlaces(): number[] {
  const places: number[] = [];
  for (let patch = 0; patch < PLACES * PLACES; patch++) {
    for (let pixel = 0; pixel < CELL * CELL; pixel++) {
      const y = Math.floor(patch / PLACES) * CELL + Math.floor(pixel / CELL);
      const x = (patch % PLACES) * CELL + (pixel % CELL);
      for (let c = 0; c < 3; c++) places.push((c * COARSE + y) * COARSE + x);
    }
  }
  return places;
}

/** The weights of the canvas that draw, at each patch, its part of the coarse picture that a code stands for. */
export function canvasWeights({ decode, mean }: Code): Record<string, NdArray<"float32">> {
  const places = coarsePlaces();
  const rows = places.length;
  const weight = new Float32Array(rows * WIDTH);
  const bias = new Float32Array(rows);
  for (const [row, from] of places.entries()) {
    weight.set(decode.data.subarray(from * WIDTH, (from + 1) * WIDTH), row * WIDTH);
    bias[row] = mean.data[from]!;
  }
  return {
    "canvas.map.weight": ndarray("float32", [rows, WIDTH], weight),
    "canvas.map.bias": ndarray("float32", [rows], bias),
  };
}

/** The code that a canvas was made from: the inverse of `canvasWeights`, up to rounding. */
export function codeOfCanvas(weights: Readonly<Record<string, NdArray>>): Code {
  const [map, bias] = ["weight", "bias"].map(
    (name) => weights[`canvas.map.${name}`]!.data,
  ) as unknown as [ArrayLike<number>, ArrayLike<number>];
  const rows = bias.length;
  const decode = new Float32Array(rows * WIDTH);
  const mean = new Float32Array(rows);
  for (const [row, from] of coarsePlaces().entries()) {
    mean[from] = bias[row]!;
    for (let k = 0; k < WIDTH; k++) decode[from * WIDTH + k] = map[row * WIDTH + k]!;
  }
  const encode = new Float32Array(WIDTH * rows);
  const offset = new Float32Array(WIDTH);
  for (let k = 0; k < WIDTH; k++) {
    // A column is a direction of length 1 times the spread of its component.
    let variance = 0;
    for (let i = 0; i < rows; i++) variance += decode[i * WIDTH + k]! ** 2;
    for (let i = 0; i < rows; i++) {
      encode[k * rows + i] = decode[i * WIDTH + k]! / variance;
      offset[k]! -= encode[k * rows + i]! * mean[i]!;
    }
  }
  return {
    encode: ndarray("float32", [WIDTH, rows], encode),
    bias: ndarray("float32", [WIDTH], offset),
    decode: ndarray("float32", [rows, WIDTH], decode),
    mean: ndarray("float32", [rows], mean),
  };
}
