/**
 * The causal video autoencoders of Wan2.1 (`wan_vae`) and Wan2.2 (`wan22_vae`): `out.CASE.mu` for the clip `in.CASE.video`, and
 * `out.CASE.video` for the latents `in.CASE.z`, with the statistics of the latents in `in.mean` and `in.std`. Clips are
 * coded in the chunks of the original.
 */
import { castArray, type NdArray, toNumbers } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import type { Graph } from "../engine/graph/graph.ts";
import type { Program } from "../engine/runtime/backend.ts";
import type { Direction } from "../models/coders/video-autoencoder.ts";
import { videoAutoencoderParams } from "../models/coders/video-autoencoder.ts";
import {
  chunkFrames,
  type VideoAutoencoderConfig,
  wanVAEConfig,
} from "../models/coders/video-autoencoder-config.ts";
import {
  chunkCoder,
  sliceFrames,
  joinFrames,
  type RunChunk,
} from "../models/coders/video-chunks.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import { recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";

export const wanVAE: Family = (recording, backend) => verify(recording, backend, false);

export const wan22VAE: Family = (recording, backend) => verify(recording, backend, true);

/** The names of what is coded and of the result. */
const tensors = {
  encode: { given: "video", coded: "mu" },
  decode: { given: "z", coded: "video" },
} as const;

async function* verify(
  recording: Recording,
  backend: BackendSource,
  bridged: boolean,
): AsyncGenerator<Computed> {
  const { args, weights } = recordedModel(recording);
  const [mean, deviation] = [await numbers(recording, "mean"), await numbers(recording, "std")];
  const config = wanVAEConfig(args, bridged, { mean, deviation });
  const checked = checkedWeights(videoAutoencoderParams(config), weights);
  const { io, name } = recording;
  let cases = 0;
  for (const key of io.entries.keys()) {
    const match = /^in\.(.+)\.(video|z)$/.exec(key);
    if (!match) continue;
    cases++;
    const direction: Direction = match[2] === "z" ? "decode" : "encode";
    const result = `out.${match[1]}.${tensors[direction].coded}`;
    const given = castArray(await io.read(key), "float32");
    const want = await io.read(result);
    const programs = new Map<Graph, Promise<Program>>();
    const compile = await backend();
    const run: RunChunk = async (graph, inputs) => {
      const program = programs.get(graph) ?? compile.compile(graph, { weights: checked });
      programs.set(graph, program);
      return (await program).run(inputs);
    };
    try {
      yield { name: result, want, got: await coded(config, direction, given, run) };
    } finally {
      for (const program of programs.values()) await (await program).dispose();
    }
  }
  if (cases > 0) return;
  throw new FormatError(
    `${name} has neither ${quote("in.CASE.video")} nor ${quote("in.CASE.z")} in ${io.name}; record clips or latents.`,
  );
}

/** Codes a clip in the chunks of the original. */
async function coded(
  config: VideoAutoencoderConfig,
  direction: Direction,
  given: NdArray<"float32">,
  run: RunChunk,
): Promise<NdArray<"float32">> {
  const [height, width] = given.shape.slice(3) as [number, number];
  const coder = chunkCoder(config, direction, [height, width]);
  const parts: NdArray<"float32">[] = [];
  for await (const part of coder.code(usedFrames(given, direction), run)) parts.push(part);
  return joinFrames(parts);
}

/** The original leaves out frames at the end that do not fill a chunk. */
function usedFrames(given: NdArray<"float32">, direction: Direction): NdArray<"float32"> {
  const frames = given.shape[2] ?? 0;
  const used = direction === "encode" ? frames - ((frames - 1) % chunkFrames) : frames;
  return used === frames ? given : sliceFrames(given, 0, used);
}

/** @throws FormatError when they were not recorded */
async function numbers({ io, name }: Recording, wanted: string): Promise<readonly number[]> {
  if (io.entries.has(`in.${wanted}`)) return toNumbers(await io.read(`in.${wanted}`));
  throw new FormatError(
    `${name} has no tensor ${quote(`in.${wanted}`)} in ${io.name}; record the statistics of the latents.`,
  );
}
