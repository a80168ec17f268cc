/**
 * A canvas of clips: the condition draws one coarse picture, and says how it moves. In each frame the picture lies in the pose that its
 * motion has at that moment, so the transformer sees at each patch what is to be there. Moving a picture by transforms that are read from
 * a table and refining it is how the first-order motion model animates stills (Siarohin et al., 2019); the sampling is that of spatial
 * transformers (Jaderberg et al., 2015).
 */
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { concat, constant, constantOf } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { type Params, zero } from "../../nn/params.ts";
import { canvasMap } from "../../nn/patch-transformer.ts";
import type { Axes } from "../../nn/patches.ts";
import type { VideoDiTConfig } from "./config.ts";

/**
 * The numbers of a pose: a, b, c, d, e, f and the share that is visible. What is shown at (x, y) is the picture's (a·x + b·y + c,
 * d·x + e·y + f), in units of half its side from its middle.
 */
export const POSE = 7;

/** The background, white, which also surrounds the picture. */
const BACKGROUND = 1;

type Canvas = NonNullable<VideoDiTConfig["canvas"]>;

/**
 * Draws the canvas of a clip: [B, code + motions] → [B, frames · h · w, width]. The last numbers of the condition are the shares of the
 * motions.
 *
 * @param start frames of a longer clip before this one, [B]
 * @param grid frames, and rows and columns of patches; the picture lies in the middle of a frame of another size
 */
export function movingCanvas(
  p: Params,
  condition: Tensor,
  start: Tensor,
  grid: Axes,
  { size, patch, channels }: VideoDiTConfig,
  { width, motions, period }: Canvas,
): Tensor {
  const own = size.map((side) => side / patch) as [number, number];
  const cell = Math.sqrt(width / channels);
  const [frames, ...shown] = grid as [number, number, number];
  const code = condition.size(1) - motions;
  const map = canvasMap(p, condition.slice(1, 0, code), [own[0] * own[1], width]);
  const rows = map.dim(0);
  const [height, wide] = own.map((side) => side * cell) as [number, number];
  const picture = map
    .rearrange("b (h w) (p q c) -> b (w q) (h p) c", { h: own[0], p: cell, q: cell, c: channels })
    .sub(BACKGROUND)
    .reshape([rows, wide, height * channels]); // [B, X, Y·C]
  const pose = poses(p, condition.slice(1, code), start, frames, { motions, period }); // [B, F, 7]
  const places = shown[0] * shown[1] * cell * cell;
  const [x, y] = placesIn(shown, own, cell).map((at) => constant(at)) as [Tensor, Tensor]; // [P] each
  const part = (i: number) => pose.slice(2, i, i + 1); // [B, F, 1]
  const along = (a: number) =>
    part(a)
      .mul(x)
      .add(part(a + 1).mul(y))
      .add(part(a + 2)); // [B, F, P]
  const near = (at: Tensor, length: number) => {
    // Half a side from the middle is `length / 2`; the first pixel's middle is at −(length − 1) / 2.
    const pixel = at
      .mul(length / 2)
      .add((length - 1) / 2)
      .reshape([rows, frames * places, 1]);
    const all = constantOf(
      Array.from({ length }, (_, i) => i),
      [length],
    );
    return pixel.sub(all).abs().neg().add(1).relu(); // [B, F·P, length]
  };
  const columns = near(along(0), wide).matmul(picture); // [B, F·P, Y·C]
  const pixels = columns
    .reshape([rows, frames * places, height, channels])
    .mul(near(along(3), height).unsqueeze(3))
    .sum(2) // [B, F·P, C]
    .reshape([rows, frames, places, channels])
    .mul(part(6).unsqueeze(3))
    .add(BACKGROUND);
  return pixels.reshape([rows, frames * shown[0] * shown[1], width]);
}

/** The poses of the frames, by linear interpolation between those of the table at whole frames: [B, F, 7]. */
function poses(
  p: Params,
  shares: Tensor,
  start: Tensor,
  frames: number,
  { motions, period }: Pick<Canvas, "motions" | "period">,
): Tensor {
  const table = p.param("poses", [motions, period * POSE], zero);
  const all = shares.matmul(table).reshape([shares.dim(0), period, POSE]);
  const moments = start.unsqueeze(1).add(ramp(frames)); // [B, F]
  const phase = moments.sub(moments.div(period).floor().mul(period)).unsqueeze(2); // [B, F, 1]
  // A period ends where it began.
  const weights = phase
    .sub(ramp(period + 1))
    .abs()
    .neg()
    .add(1)
    .relu(); // [B, F, period + 1]
  return weights.matmul(concat([all, all.slice(1, 0, 1)], 1));
}

function ramp(length: number): Tensor {
  return constantOf(
    Array.from({ length }, (_, i) => i),
    [length],
  );
}

/**
 * The places of the pixels of the canvas, patch by patch, in units of half a side of the picture from its middle: columns and rows, [P] each.
 *
 * @param shown rows and columns of patches of a frame
 * @param own those of the picture
 * @param cell pixels of the canvas along a side of a patch
 */
function placesIn(
  [rows, columns]: readonly [number, number],
  [height, width]: readonly [number, number],
  cell: number,
): readonly [NdArray, NdArray] {
  const x: number[] = [];
  const y: number[] = [];
  const place = (at: number, count: number, side: number) =>
    (at + 0.5 - (count * cell) / 2) / ((side * cell) / 2);
  for (let patch = 0; patch < rows * columns; patch++) {
    for (let pixel = 0; pixel < cell * cell; pixel++) {
      const [row, column] = [Math.floor(patch / columns), patch % columns];
      x.push(place(column * cell + (pixel % cell), columns, width));
      y.push(place(row * cell + Math.floor(pixel / cell), rows, height));
    }
  }
  return [ndarray("float32", [x.length], x), ndarray("float32", [y.length], y)];
}
