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

/** The weights of the canvas that draw, at each patch, its part of the coarse picture that a code stands for. */
export function canvasWeights({ decode, mean }: Code): Record<string, NdArray<"float32">> {
  const rows = PLACES * PLACES * CELL * CELL * 3;
  const weight = new Float32Array(rows * WIDTH);
  const bias = new Float32Array(rows);
  let row = 0;
  for (let place = 0; place < PLACES * PLACES; place++) {
    for (let pixel = 0; pixel < CELL * CELL; pixel++) {
      const y = Math.floor(place / PLACES) * CELL + Math.floor(pixel / CELL);
      const x = (place % PLACES) * CELL + (pixel % CELL);
      for (let c = 0; c < 3; c++, row++) {
        const from = (c * COARSE + y) * COARSE + x;
        weight.set(decode.data.subarray(from * WIDTH, (from + 1) * WIDTH), row * WIDTH);
        bias[row] = mean.data[from]!;
      }
    }
  }
  return {
    "canvas.map.weight": ndarray("float32", [rows, WIDTH], weight),
    "canvas.map.bias": ndarray("float32", [rows], bias),
  };
}
