/** From the latents of a clip to its frames, by a causal video autoencoder: chunk by chunk in time, and for large frames in tiles. */
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { tiledDecode } from "../models/coders/autoencoder-kl.ts";
import { joinFrames, type RunChunk } from "../models/coders/video-chunks.ts";
import { type Clip, clipOfPictures, picturesOfClip } from "../pictures/clip.ts";
import { framesOf, type Picture } from "../pictures/picture.ts";
import type { ClipStages, RunStage } from "./image-model.ts";

/**
 * Latents along a side of a tile. 832×480 pixels of Wan2.1 are one, so that they are those of the original, and 1280×704 are several.
 */
export const clipTile = 112;

interface ClipDecoding {
  /** The decoder for latents of a height and width. */
  readonly decoder: (size: readonly [height: number, width: number]) => ClipStages;
  readonly run: RunStage;
  readonly signal?: AbortSignal | undefined;
  /** Latents along a side of a tile, by which larger frames are decoded. */
  readonly tile?: number;
}

/**
 * Decodes latents [1, C, f, h, w]. Frames become bytes as soon as they are decoded, so what grows with the length is the clip alone.
 * Frames of several tiles are only about those of the whole, and are kept as numbers until the last tile is blended.
 */
export async function decodeClipLatents(
  latents: NdArray<"float32">,
  decoding: ClipDecoding,
): Promise<Clip> {
  const { tile = clipTile } = decoding;
  const [rows, channels, frames, height, width] = latents.shape as Shape5;
  if (Math.max(height, width) <= tile) {
    const pictures: Picture[] = [];
    for await (const part of chunksOf(latents, decoding)) {
      pictures.push(...picturesOfClip(framesOf(part)[0]!));
    }
    return clipOfPictures(pictures);
  }
  // To the blending of tiles, frames are more channels.
  const flat = ndarray("float32", [rows, channels * frames, height, width], latents.data);
  const whole = await tiledDecode(
    async ({ shape, data }) => {
      const piece = ndarray("float32", [rows, channels, frames, shape[2]!, shape[3]!], data);
      const parts: NdArray<"float32">[] = [];
      for await (const part of chunksOf(piece, decoding)) parts.push(part);
      const clip = joinFrames(parts);
      const [, colours, shown, high, wide] = clip.shape as Shape5;
      return ndarray("float32", [rows, colours * shown, high, wide], clip.data);
    },
    flat,
    { tile, overlap: Math.floor(tile / 4) },
  );
  const [, planes, high, wide] = whole.shape as readonly [number, number, number, number];
  return framesOf(ndarray("float32", [rows, 3, planes / 3, high, wide], whole.data))[0]!;
}

type Shape5 = readonly [number, number, number, number, number];

/** Decoded chunks of latents, in order. */
async function* chunksOf(
  latents: NdArray<"float32">,
  { decoder: decoderFor, run, signal }: ClipDecoding,
): AsyncGenerator<NdArray<"float32">> {
  const decoder = decoderFor(latents.shape.slice(-2) as [number, number]);
  const runChunk: RunChunk = (graph, inputs) => run(decoder.stage(graph), inputs);
  for await (const part of decoder.coder.code(latents, runChunk)) {
    signal?.throwIfAborted();
    yield castArray(part, "float32");
  }
}
