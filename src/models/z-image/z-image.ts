/**
 * Z-Image (Alibaba Tongyi, 2025), a transformer of one stream: the tokens of the image and those of the text are first refined
 * apart, then go through the same blocks together. Every branch is normalized before and after, gates go through a tanh, and
 * the number of tokens of either kind is rounded up to a multiple of 32 by trained padding that is attended to.
 *
 * Weights have the names of https://github.com/Tongyi-MAI/Z-Image, which are those of diffusers.
 */
import { UsageError } from "../../engine/errors.ts";
import { concat, constantOf, full, where } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { groupedQueryAttention, maskBias } from "../../nn/attention.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import { linear } from "../../nn/linear.ts";
import { gatedMlp } from "../../nn/mlp.ts";
import { norm, type Norm } from "../../nn/norm.ts";
import { normal, type Params } from "../../nn/params.ts";
import {
  type Axes,
  formatAxes,
  patchCount,
  patchGrid,
  patchify,
  unpatchify,
} from "../../nn/patches.ts";
import { gridPlaces, type RotaryTable, rotaryTableOf } from "../../nn/positions.ts";
import { checkTimes, embedVector, timestepEmbedding } from "../../nn/timestep-embedding.ts";
import type { ZImageConfig } from "./config.ts";

export interface ZImageInputs {
  /** Latents, [B, channels, height, width]. */
  readonly x: Tensor;
  /** Times [B] in [0, 1000], float32, where 1000 is pure noise. */
  readonly t: Tensor;
  /** Tokens of the text, [B, length, width]. */
  readonly y: Tensor;
  /** Mask of the text's tokens, [B, length] bool, false for padding behind the text; none is padding by default. */
  readonly mask?: Tensor | undefined;
}

export interface ZImageOptions {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean | undefined;
}

/** Tokens of a kind are padded to a multiple of it. */
const unit = 32;
const rounded = (count: number) => Math.ceil(count / unit) * unit;

/**
 * Predicts the velocity, noise − image: [B, channels, H, W] → the same shape.
 *
 * @throws ShapeError if the patch does not divide the image; UsageError if the positions do not cover it
 */
export function zImage(
  p: Params,
  { t, ...inputs }: ZImageInputs,
  config: ZImageConfig,
  options: ZImageOptions = {},
): Tensor {
  const share = t.div(-1000).add(1);
  return zImageOriginal(p, { ...inputs, share }, config, options).neg();
}

/** The network of the original code: told the image's share of x, [B] in [0, 1], it predicts image − noise. */
export function zImageOriginal(
  p: Params,
  { x, share, y, mask }: Omit<ZImageInputs, "t"> & { readonly share: Tensor },
  config: ZImageConfig,
  { recompute }: ZImageOptions = {},
): Tensor {
  const { patch, hidden, channels, refiners, depth } = config;
  checkTimes(share, undefined, "Z-Image");
  const grid = patchGrid(x, patch);
  const size = `${patch}-1`;
  const time = embeddedTime(p.at("t_embedder.mlp"), share, config); // [B, min(C, 256)]
  const patches = patchify(x, patch, "channels-last"); // [B, N, patch²·channels]
  const image = paddedTokens(p, linear(p.at(`all_x_embedder.${size}`), patches, hidden)); // [B, M, C]
  const caption = captionTokens(p, y, mask, config);
  const places = placesOf(grid, caption, config);

  const run = (list: string, count: number, tokens: Tensor, shared: Omit<Shared, "config">) =>
    runBlocks(
      [tokens] as [Tensor],
      blockScopes(p, list, count),
      (scope, [h]) => [block(scope, h, { ...shared, config })],
      { recompute },
    )[0];
  const { tokens, bias } = caption;
  const refined = run("noise_refiner", refiners, image, { time, rotary: places.image });
  const text = run("context_refiner", refiners, tokens, { rotary: places.text, bias });
  const joint = bias && concat([full([bias.dim(0), 1, 1, image.size(1)], 0), bias], -1);
  const all = run("layers", depth, concat([refined, text], 1), {
    time,
    rotary: places.all,
    bias: joint,
  });
  const last = p.at(`all_final_layer.${size}`);
  const predicted = finalLayer(
    last,
    all.slice(1, 0, patchCount(grid)),
    time,
    patch ** 2 * channels,
  );
  return unpatchify(predicted, grid, patch, "channels-last");
}

function embeddedTime(p: Params, share: Tensor, { hidden, timeWidth, timeScale }: ZImageConfig) {
  const sinusoids = timestepEmbedding(share.mul(timeScale), 256);
  return embedVector(p, ["0", "2"], sinusoids, Math.min(hidden, 256), { inner: timeWidth });
}

/** The tokens of the image with padding behind them: [B, N, C] → [B, M, C], M a multiple of 32. */
function paddedTokens(p: Params, tokens: Tensor): Tensor {
  const [count, width] = [tokens.size(1), tokens.size(2)];
  // Every checkpoint contains it, so it is declared even if nothing is padded.
  const pad = p.param("x_pad_token", [1, width], normal(0.02));
  if (count === rounded(count)) return tokens;
  return concat([tokens, pad.expand([tokens.dim(0), rounded(count) - count, width])], 1);
}

interface Caption {
  /** [B, L, C], L a multiple of 32. */
  readonly tokens: Tensor;
  /** The number of tokens with the padding that is attended to: of all texts, or of each, [B] int64. */
  readonly lengths: number | Tensor;
  /** Masks what is behind it, [B, 1, 1, L]; undefined where nothing is. */
  readonly bias?: Tensor;
}

function captionTokens(
  p: Params,
  y: Tensor,
  mask: Tensor | undefined,
  { hidden, epsilon }: ZImageConfig,
): Caption {
  const [rows, given] = [y.dim(0), y.size(1)];
  const length = rounded(given);
  const normed = norm(p.at("cap_embedder.0"), y, rms(epsilon));
  const embedded = linear(p.at("cap_embedder.1"), normed, hidden); // [B, given, C]
  const pad = p.param("cap_pad_token", [1, hidden], normal(0.02));
  const behind = full([rows, length - given], 0, "bool");
  const kept = mask && (length === given ? mask : concat([mask, behind], 1)); // [B, L]
  const tokens =
    length === given ? embedded : concat([embedded, pad.expand([rows, length - given, hidden])], 1); // [B, L, C]
  if (!kept) return { tokens, lengths: length };
  const lengths = kept.cast("float32").sum(1).div(unit).ceil().mul(unit); // [B]
  const index = constantOf(
    Array.from({ length }, (_, i) => i),
    [1, length],
  );
  return {
    tokens: where(kept.unsqueeze(-1), tokens, pad),
    lengths: lengths.cast("int64"),
    bias: maskBias(index.less(lengths.unsqueeze(1))),
  };
}

/**
 * Token i of the text is at (i + 1, 0, 0), its padding included; a patch of the image at (length + 1, row, column), behind the
 * text's attended tokens; padding of the image at (0, 0, 0).
 */
function placesOf(grid: Axes, { tokens, lengths }: Caption, config: ZImageConfig) {
  const [most, rows, columns] = config.places;
  const length = tokens.size(1);
  const [height, width] = grid as readonly [number, number];
  if (height > rows || width > columns || length + 1 >= most) {
    throw new UsageError(
      `An image of ${formatAxes(grid.map((side) => side * config.patch))} with ${length} tokens of text has positions that this Z-Image does not know; give at most ${formatAxes([rows, columns].map((side) => side * config.patch))} and ${most - 2} tokens.`,
    );
  }
  const pairs = config.axes.map((channels) => channels / 2);
  const tableOf = (places: readonly (readonly number[])[], of = pairs) =>
    rotaryTableOf(places, of, { theta: config.theta });
  const text = tableOf(Array.from({ length }, (_, i) => [i + 1, 0, 0]));
  const patches = gridPlaces(grid);
  const padding = Array.from({ length: rounded(patches.length) - patches.length }, () => [0, 0, 0]);
  if (typeof lengths === "number") {
    const image = tableOf([...patches.map((place) => [lengths + 1, ...place]), ...padding]);
    return { text, image, all: joinTables([image, text], 0) };
  }
  const batch = lengths.dim(0);
  const everyRow = (table: RotaryTable) => mapTable(table, (x) => x.expand([batch, ...x.shape]));
  const [first = 0, ...others] = pairs;
  const behindText = mapTable(tableOf(gridPlaces([length + 2]), [first]), (x) =>
    x.gather(lengths.add(constantOf([1], [], "int64"))).unsqueeze(1),
  ); // [B, 1, 1, first]
  const inGrid = mapTable(behindText, (x) => x.expand([batch, patches.length, 1, first]));
  const unrotated = everyRow(
    tableOf(
      padding.map(() => [0]),
      [first],
    ),
  );
  const along = padding.length > 0 ? joinTables([inGrid, unrotated], 1) : inGrid;
  const across = everyRow(tableOf([...patches, ...padding.map(() => [0, 0])], others));
  const image = joinTables([along, across], -1); // [B, M, 1, D / 2]
  return { text, image, all: joinTables([image, everyRow(text)], 1) };
}

function mapTable({ cos, sin, pairing }: RotaryTable, f: (x: Tensor) => Tensor): RotaryTable {
  return { cos: f(cos), sin: f(sin), pairing };
}

function joinTables(tables: readonly [RotaryTable, RotaryTable], axis: number): RotaryTable {
  const [{ pairing }] = tables;
  const joined = (part: "cos" | "sin") =>
    concat(
      tables.map((table) => table[part]),
      axis,
    );
  return { cos: joined("cos"), sin: joined("sin"), pairing };
}

/** What the blocks of a list share. */
interface Shared {
  readonly config: ZImageConfig;
  readonly rotary: RotaryTable;
  /** Modulates the branches; blocks over the text alone have none. */
  readonly time?: Tensor;
  readonly bias?: Tensor | undefined;
}

const rms = (epsilon: number): Norm => ({ kind: "rms", affine: true, epsilon });

/** A block with norms before and after each branch: [B, N, C] → [B, N, C]. */
function block(p: Params, x: Tensor, { config, rotary, time, bias }: Shared): Tensor {
  const { hidden, heads, epsilon, qkNorm } = config;
  const values = time && linear(p.at("adaLN_modulation.0"), time, 4 * hidden).split(4, -1);
  const branch = (name: string, i: number, compute: (input: Tensor) => Tensor) => {
    const [scale, gate] = values?.slice(2 * i).map((value) => value.unsqueeze(1)) ?? [];
    const normed = norm(p.at(`${name}_norm1`), x, rms(epsilon));
    const output = norm(
      p.at(`${name}_norm2`),
      compute(scale ? normed.mul(scale.add(1)) : normed),
      rms(epsilon),
    );
    x = x.add(gate ? output.mul(gate.tanh()) : output);
  };
  branch("attention", 0, (input) =>
    groupedQueryAttention(p.at("attention"), input, {
      heads,
      keyHeads: heads,
      headSize: hidden / heads,
      names: ["to_q", "to_k", "to_v", "to_out.0"],
      qkNorm: qkNorm ? rms(epsilon) : null,
      normNames: ["norm_q", "norm_k"],
      rotary,
      bias,
    }),
  );
  branch("ffn", 1, (input) => gatedMlp(p.at("feed_forward"), input, Math.trunc((hidden / 3) * 8)));
  return x;
}

/** [B, N, C] → [B, N, outputs]. Its norm has an epsilon of its own. */
function finalLayer(p: Params, x: Tensor, time: Tensor, outputs: number): Tensor {
  const scale = linear(p.at("adaLN_modulation.1"), time.silu(), x.size(-1)).add(1).unsqueeze(1);
  const normed = norm(p, x, { kind: "layer", affine: false, epsilon: 1e-6 });
  return linear(p.at("linear"), normed.mul(scale), outputs);
}
