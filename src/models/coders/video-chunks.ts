/** Coding of whole clips chunk by chunk, by a causal video autoencoder. */
import { castArray, type NdArray, ndarray, sizeOf } from "../../engine/arrays/ndarray.ts";
import { ShapeError } from "../../engine/errors.ts";
import type { Graph } from "../../engine/graph/graph.ts";
import { chunkGraph, type Direction } from "./video-autoencoder.ts";
import {
  chunkFrames,
  spatialFactor,
  temporalFactor,
  type VideoAutoencoderConfig,
} from "./video-autoencoder-config.ts";

/** Runs the graph of a chunk. The same graph is the same object each time, so that its program can be kept. */
export type RunChunk = (
  graph: Graph,
  inputs: Readonly<Record<string, NdArray>>,
) => Promise<Readonly<Record<string, NdArray>>>;

/** Coding of the clips of one size. */
export interface ChunkCoder {
  /** The chunk's graph for a number of frames, or of latents to decode. */
  graph(frames: number, first: boolean): Graph;
  /**
   * Codes a clip, [B, C, frames, H, W], and yields the coded chunks in order, so that only one is in memory. The result is that of the
   * original, whatever the length of the chunks.
   *
   * @param length frames or latents of a chunk after the first, which is one; 4 frames or 1 latent by default
   * @throws ShapeError when the clip cannot be coded
   */
  code(
    clip: NdArray<"float32">,
    run: RunChunk,
    length?: number,
  ): AsyncGenerator<NdArray<"float32">>;
}

/**
 * @param size height and width of the frames, or of the latents to decode
 * @throws ShapeError when the autoencoder cannot code frames of this size
 * @example
 * const coder = chunkCoder(config, "decode", [16, 16]);
 * for await (const frames of coder.code(latents, run)) write(frames);
 */
export function chunkCoder(
  config: VideoAutoencoderConfig,
  direction: Direction,
  size: readonly [height: number, width: number],
): ChunkCoder {
  const unit = spatialFactor(config);
  if (direction === "encode" && size.some((side) => side % unit !== 0)) {
    throw new ShapeError(
      `Frames of ${size.join("×")} cannot be encoded, because a latent is ${unit}×${unit} of their pixels; use multiples of ${unit}.`,
    );
  }
  const graphs = new Map<string, Graph>();
  const graph = (frames: number, first: boolean) => {
    const key = `${frames} ${first}`;
    const made = graphs.get(key) ?? chunkGraph(config, direction, size, frames, first);
    graphs.set(key, made);
    return made;
  };
  const step = direction === "encode" ? temporalFactor(config) : 1;
  return {
    graph,
    async *code(clip, run, length = direction === "encode" ? chunkFrames : 1) {
      const frames = clip.shape[2] ?? 0;
      checkLengths(frames, length, step);
      let cache: Readonly<Record<string, NdArray>> = {};
      for (let start = 0; start < frames;) {
        const end = Math.min(frames, start + (start === 0 ? 1 : length));
        const chunk = sliceFrames(clip, start, end);
        const { coded, ...kept } = await run(graph(end - start, start === 0), { chunk, ...cache });
        yield castArray(coded!, "float32");
        cache = Object.fromEntries(
          Object.entries(kept).map(([name, value]) => [name.replace("kept", "cache"), value]),
        );
        start = end;
      }
    },
  };
}

function checkLengths(frames: number, length: number, step: number): void {
  if (frames < 1 || (frames - 1) % step !== 0) {
    const near = Math.max(0, Math.round((frames - 1) / step)) * step + 1;
    throw new ShapeError(
      `A clip of ${frames} frames cannot be encoded: after the first frame, every ${step} frames are one latent; give ${near} frames.`,
    );
  }
  if (!Number.isInteger(length) || length < 1 || length % step !== 0) {
    throw new ShapeError(
      `Chunks of ${length} frames cannot be coded; give a whole number of at least 1${step > 1 ? ` that is a multiple of ${step}` : ""}.`,
    );
  }
}

/** The frames from `start` to before `end` of a clip [B, C, frames, H, W]. */
export function sliceFrames(
  clip: NdArray<"float32">,
  start: number,
  end: number,
): NdArray<"float32"> {
  const [rows, channels, frames, ...size] = clip.shape as [number, number, number, number, number];
  const area = sizeOf(size);
  const data = new Float32Array(rows * channels * (end - start) * area);
  for (let plane = 0; plane < rows * channels; plane++) {
    const from = clip.data.subarray((plane * frames + start) * area, (plane * frames + end) * area);
    data.set(from, plane * (end - start) * area);
  }
  return ndarray("float32", [rows, channels, end - start, ...size], data);
}

/** Joins parts of a clip, [B, C, frames, H, W] each, in time. */
export function joinFrames(parts: readonly NdArray<"float32">[]): NdArray<"float32"> {
  const [first] = parts;
  const [rows, channels, , ...size] = first!.shape as [number, number, number, number, number];
  const lengths = parts.map(({ shape }) => shape[2]!);
  const frames = lengths.reduce((sum, length) => sum + length, 0);
  const area = sizeOf(size);
  const data = new Float32Array(rows * channels * frames * area);
  let start = 0;
  for (const [i, { data: values }] of parts.entries()) {
    const length = lengths[i]! * area;
    for (let plane = 0; plane < rows * channels; plane++) {
      data.set(
        values.subarray(plane * length, (plane + 1) * length),
        plane * frames * area + start,
      );
    }
    start += length;
  }
  return ndarray("float32", [rows, channels, frames, ...size], data);
}
