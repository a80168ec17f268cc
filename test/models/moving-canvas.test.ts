import { expect, it } from "vitest";
import { inMotion, type MotionName, motionNames } from "../../src/data/motions.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { networkSchema, traceNetwork } from "../../src/models/network.ts";
import type { VideoDiTConfig } from "../../src/models/video-dit/config.ts";
import { movingCanvas } from "../../src/models/video-dit/moving-canvas.ts";
import { createParams } from "../../src/nn/params.ts";
import { poseNumbers } from "../../scripts/motion/network.ts";

const [SIDE, PERIOD, CODE] = [8, 4, 8 * 8 * 3];
const given = {
  kind: "video-dit",
  size: [16, 16],
  frames: PERIOD,
  channels: 3,
  patch: 8,
  framePatch: 1,
  hidden: 24,
  depth: 1,
  heads: 2,
  mlpRatio: 2,
  learnedVariance: false,
  condition: { kind: "text", width: CODE + motionNames.length, length: 1 },
  // Four pixels along a side of a patch of eight.
  canvas: { width: 3 * 4 * 4, motions: motionNames.length, period: PERIOD },
  patches: { kind: "linear" },
  positions: { kind: "none" },
  rotary: { theta: 100, pairs: [2, 2, 2] },
  norm: { kind: "rms", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "swiglu" },
  qkNorm: null,
};
const config = networkSchema().parse(given) as unknown as VideoDiTConfig;

/** The canvas of a clip whose code is the picture itself, patch by patch, as bytes [frames][rows · columns of patches][4 · 4 · 3]. */
function canvasOf(still: Uint8Array, motion: MotionName, start: number, grid: number[]) {
  const p = createParams();
  const condition = input("y", [batch, CODE + motionNames.length]);
  const canvas = movingCanvas(p, condition, input("start", [batch]), grid, config, config.canvas!);
  const code: number[] = [];
  eachPixel(2, 2, (at) => code.push(still[at]! / 127.5 - 1));
  const shares = motionNames.map((name) => (name === motion ? 1 : 0));
  const poses = motionNames.flatMap((name) =>
    Array.from({ length: PERIOD }, (_, i) => poseNumbers(name, i / PERIOD)).flat(),
  );
  const weight = Array.from({ length: CODE * CODE }, (_, i) => (i % (CODE + 1) === 0 ? 1 : 0));
  const values: Record<string, NdArray> = {
    y: ndarray("float64", [1, CODE + shares.length], [...code, ...shares]),
    start: ndarray("float64", [1], [start]),
    "map.weight": ndarray("float64", [CODE, CODE], weight),
    "map.bias": ndarray("float64", [CODE], new Array<number>(CODE).fill(0)),
    poses: ndarray("float64", [motionNames.length, PERIOD * 7], poses),
  };
  const result = evaluateFloat64(graphOf({ canvas }), values);
  return toNumbers(result["canvas"]!).map((value) => (value + 1) * 127.5);
}

/** Calls `f` with the place of every value of a picture of 4-pixel patches, patch by patch. */
function eachPixel(rows: number, columns: number, f: (at: number) => void): void {
  for (let patch = 0; patch < rows * columns; patch++) {
    for (let pixel = 0; pixel < 16; pixel++) {
      const y = Math.floor(patch / columns) * 4 + Math.floor(pixel / 4);
      const x = (patch % columns) * 4 + (pixel % 4);
      for (let c = 0; c < 3; c++) f((y * columns * 4 + x) * 3 + c);
    }
  }
}

const still = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, i) => (i * 37 + 11) % 256);
// What lies outside a picture in motion has the colour of its first corner; a canvas is white there.
still.fill(255, 0, 3);

it.each(motionNames)("moves the picture of its code as the data do: %s", (motion) => {
  const shape = { height: SIDE, width: SIDE, channels: 3, frames: PERIOD } as const;
  for (const start of [0, 3]) {
    const canvas = canvasOf(still, motion, start, [PERIOD, 2, 2]);
    const clip = inMotion(still, shape, motion, start / PERIOD);
    let i = 0;
    for (let frame = 0; frame < PERIOD; frame++) {
      eachPixel(2, 2, (at) => {
        const real = clip[frame * still.length + at]!;
        expect(Math.abs(canvas[i++]! - real)).toBeLessThan(0.51);
      });
    }
  }
});

it("draws wider and longer clips with the picture in the middle, on white", () => {
  const canvas = canvasOf(still, "stay", 0, [PERIOD + 1, 2, 4]);
  let i = 0;
  for (let frame = 0; frame <= PERIOD; frame++) {
    eachPixel(2, 4, (at) => {
      const [y, x, c] = [Math.floor(at / 48), Math.floor(at / 3) % 16, at % 3];
      const real = x < 4 || x >= 12 ? 255 : still[(y * SIDE + x - 4) * 3 + c]!;
      expect(Math.abs(canvas[i++]! - real)).toBeLessThan(1e-6);
    });
  }
  expect(i).toBe(canvas.length);
});

it("is told where in a longer clip it begins", () => {
  const { inputs } = traceNetwork(config as never);
  expect(Object.keys(inputs)).toContain("start");
});

it.each<[string, object, string]>([
  ["a width of no square", { canvas: { ...config.canvas!, width: 30 } }, "choose 48"],
  ["patches of several frames", { framePatch: 2 }, "set framePatch to 1"],
  [
    "a condition that is no wider than the motions",
    { condition: { kind: "text", width: 7, length: 1 } },
    "wider than its 7 motions",
  ],
  [
    "pairs for two axes",
    { rotary: { theta: 100, pairs: [3, 3] } },
    "must be 3 numbers, one for each axis",
  ],
])("refuses %s", (_, fields, message) => {
  const { error } = networkSchema().safeParse({ ...given, ...fields });
  expect(error?.issues[0]!.message).toContain(message);
});
