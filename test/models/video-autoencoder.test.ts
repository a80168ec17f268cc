import path from "node:path";
import { describe, expect, it } from "vitest";
import { castArray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { FormatError, ShapeError } from "../../src/engine/errors.ts";
import type { Graph } from "../../src/engine/graph/graph.ts";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Program } from "../../src/engine/runtime/backend.ts";
import {
  videoAutoencoderIn,
  videoAutoencoderKeys,
} from "../../src/models/coders/video-autoencoder-checkpoint.ts";
import {
  diffusersVideoAutoencoderConfig,
  type VideoAutoencoderConfig,
  videoAutoencoderPresets,
  wanVAEConfig,
} from "../../src/models/coders/video-autoencoder-config.ts";
import { videoAutoencoderParams } from "../../src/models/coders/video-autoencoder.ts";
import { chunkCoder, joinFrames, type RunChunk } from "../../src/models/coders/video-chunks.ts";
import { countedPresets } from "../../src/pipelines/counted-presets.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { randomArray } from "../support/arrays.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");
const read = (fields: object) => fieldReader("config.json", fields as Record<string, unknown>);
/** What the order of sums may change of numbers up to about 4. */
const ROUNDING = 4e-6;
const none = { mean: [], deviation: [] };

it.each(["wan_vae", "wan22_vae_small"])("the recording %s is reproduced", async (folder) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => backend),
  );
  expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
  expect(report.outputs.length).toBe(2);
});

it.each([
  ["Wan2.1-VAE", 126_892_531],
  ["Wan2.2-VAE", 704_688_668],
] as const)("%s has the keys and the parameters of its checkpoint", (name, parameters) => {
  const checkpoint = shapedWeights(publishedShapes(name));
  const { declared } = videoAutoencoderParams(videoAutoencoderPresets[name]);
  expect([...declared.keys()].sort()).toEqual([...checkpoint.entries.keys()].sort());
  expect(videoAutoencoderIn(checkpoint).config).toEqual(videoAutoencoderPresets[name]);
  expect(countParameters(countedPresets().get(name)!.graph())).toBe(parameters);
});

describe("a clip in chunks", () => {
  const tiny: VideoAutoencoderConfig = {
    latentChannels: 3,
    encoderWidth: 4,
    decoderWidth: 4,
    multipliers: [2, 1],
    layers: 1,
    halvesFrames: [true],
    bridged: true,
    mean: [0.1, -0.2, 0.3],
    deviation: [0.5, 1.5, 1],
  };

  async function coded(
    direction: "encode" | "decode",
    clip: NdArray<"float32">,
    length?: number,
  ): Promise<{
    readonly clip: NdArray<"float32">;
    readonly largest: number;
    readonly runs: number;
  }> {
    const file = await openSafetensorsFile(
      path.join(fixtures, "wan22_vae_small/weights.safetensors"),
    );
    const { weights } = videoAutoencoderIn(file, tiny);
    const programs = new Map<Graph, Program>();
    let [largest, runs] = [0, 0];
    const run: RunChunk = async (graph, inputs) => {
      const program = programs.get(graph) ?? (await backend.compile(graph, { weights }));
      programs.set(graph, program);
      const outputs = await program.run(inputs);
      const held = [...Object.values(inputs), ...Object.values(outputs)];
      largest = Math.max(
        largest,
        held.reduce((sum, { data }) => sum + data.length, 0),
      );
      runs++;
      return outputs;
    };
    const parts: NdArray<"float32">[] = [];
    const coder = chunkCoder(tiny, direction, clip.shape.slice(3) as [number, number]);
    for await (const part of coder.code(clip, run, length)) parts.push(castArray(part, "float32"));
    for (const program of programs.values()) await program.dispose();
    await file.close();
    expect(programs.size).toBeLessThanOrEqual(3);
    return { clip: joinFrames(parts), largest, runs };
  }

  const apart = (a: NdArray<"float32">, b: NdArray<"float32">) =>
    Math.max(...a.data.map((x, i) => Math.abs(x - b.data[i]!)));

  it("decodes to the same frames whatever the length of the chunks", async () => {
    const latents = randomArray(1, "float32", [2, 3, 6, 2, 3], -1, 1) as NdArray<"float32">;
    const single = await coded("decode", latents);
    expect(single.runs).toBe(6);
    expect(single.clip.shape).toEqual([2, 3, 11, 8, 12]);
    for (const length of [2, 5]) {
      const longer = await coded("decode", latents, length);
      expect(longer.clip.shape).toEqual(single.clip.shape);
      expect(apart(longer.clip, single.clip)).toBeLessThan(ROUNDING);
    }
  });

  it("encodes to the same latents whatever the length of the chunks", async () => {
    const frames = randomArray(2, "float32", [1, 3, 9, 8, 8], -1, 1) as NdArray<"float32">;
    const fours = await coded("encode", frames);
    expect(fours.clip.shape).toEqual([1, 3, 5, 2, 2]);
    for (const length of [2, 8]) {
      expect(apart((await coded("encode", frames, length)).clip, fours.clip)).toBeLessThan(
        ROUNDING,
      );
    }
  });

  it("takes no more memory for a longer clip", async () => {
    const clip = (frames: number) =>
      randomArray(3, "float32", [1, 3, frames, 2, 2]) as NdArray<"float32">;
    const short = await coded("decode", clip(3));
    expect((await coded("decode", clip(12))).largest).toBe(short.largest);
  });

  it("begins as the picture that the first frame is", async () => {
    const latents = randomArray(1, "float32", [1, 3, 3, 2, 2]) as NdArray<"float32">;
    const first = { ...latents, shape: [1, 3, 1, 2, 2], data: new Float32Array(12) };
    for (let c = 0; c < 3; c++) first.data.set(latents.data.subarray(c * 12, c * 12 + 4), c * 4);
    const picture = (await coded("decode", first)).clip.data;
    const whole = (await coded("decode", latents)).clip.data;
    expect(whole.subarray(0, 64)).toEqual(picture.subarray(0, 64));
  });

  it.each([
    ["a length between latents", [1, 3, 4, 8, 8], undefined, "give 5 frames"],
    ["no frames", [1, 3, 0, 8, 8], undefined, "A clip of 0 frames"],
    ["sides that latents do not divide", [1, 3, 1, 6, 8], undefined, "use multiples of 4"],
    ["chunks between latents", [1, 3, 5, 8, 8], 3, "that is a multiple of 2"],
  ] as const)("refuses %s", async (_, shape, length, message) => {
    const clip = randomArray(4, "float32", shape) as NdArray<"float32">;
    const attempt = coded("encode", clip, length);
    await expect(attempt).rejects.toThrow(ShapeError);
    await expect(attempt).rejects.toThrow(message);
  });
});

describe("the arguments of the originals", () => {
  it.each<[object, boolean, string]>([
    [{ attn_scales: [0.5] }, false, '"attn_scales" = [0.5]'],
    [{ dim_mult: [1, 2, 4, 4, 4] }, false, "at most 4"],
    [{ temperal_downsample: [true] }, false, "one for each level but the last"],
    [{ temperal_downsample: [true, true, true] }, true, "can be halved twice"],
    [{ dim_mult: [1, 16, 1], temperal_downsample: [true, true] }, true, "cannot bridge level 1"],
    [{ depth: 3 }, true, '"depth", which is no argument of WanVAE_'],
  ])("%o are refused by name", (fields, bridged, message) => {
    expect(() => wanVAEConfig(read(fields), bridged, none)).toThrow(FormatError);
    expect(() => wanVAEConfig(read(fields), bridged, none)).toThrow(message);
  });

  it("of diffusers give the published configs", () => {
    const { mean, deviation } = videoAutoencoderPresets["Wan2.2-VAE"];
    expect(diffusersVideoAutoencoderConfig(read({}))).toEqual(
      videoAutoencoderPresets["Wan2.1-VAE"],
    );
    const second = {
      is_residual: true,
      in_channels: 12,
      out_channels: 12,
      patch_size: 2,
      z_dim: 48,
      base_dim: 160,
      decoder_base_dim: 256,
      latents_mean: mean,
      latents_std: deviation,
      scale_factor_spatial: 16,
      scale_factor_temporal: 4,
    };
    expect(diffusersVideoAutoencoderConfig(read(second))).toEqual(
      videoAutoencoderPresets["Wan2.2-VAE"],
    );
    expect(() => diffusersVideoAutoencoderConfig(read({ ...second, latents_std: [1] }))).toThrow(
      '1 numbers in "latents_std"',
    );
  });
});

it.each([
  ["Wan2.1-VAE", "encoder.downsamples.5.time_conv.bias", "encoder.down_blocks.5.time_conv.bias"],
  ["Wan2.1-VAE", "encoder.downsamples.3.shortcut.bias", "encoder.down_blocks.3.conv_shortcut.bias"],
  ["Wan2.1-VAE", "decoder.upsamples.6.residual.2.bias", "decoder.up_blocks.1.resnets.2.conv1.bias"],
  [
    "Wan2.1-VAE",
    "decoder.upsamples.7.resample.1.bias",
    "decoder.up_blocks.1.upsamplers.0.resample.1.bias",
  ],
  ["Wan2.1-VAE", "encoder.middle.2.residual.3.gamma", "encoder.mid_block.resnets.1.norm2.gamma"],
  ["Wan2.1-VAE", "decoder.middle.1.to_qkv.weight", "decoder.mid_block.attentions.0.to_qkv.weight"],
  ["Wan2.1-VAE", "decoder.head.2.weight", "decoder.conv_out.weight"],
  ["Wan2.1-VAE", "conv1.weight", "quant_conv.weight"],
  [
    "Wan2.2-VAE",
    "encoder.downsamples.1.downsamples.2.time_conv.bias",
    "encoder.down_blocks.1.downsampler.time_conv.bias",
  ],
  [
    "Wan2.2-VAE",
    "decoder.upsamples.2.upsamples.0.shortcut.bias",
    "decoder.up_blocks.2.resnets.0.conv_shortcut.bias",
  ],
  [
    "Wan2.2-VAE",
    "decoder.upsamples.0.upsamples.3.resample.1.bias",
    "decoder.up_blocks.0.upsampler.resample.1.bias",
  ],
] as const)("diffusers' name in %s of %s is %s", (preset, ours, theirs) => {
  const config = videoAutoencoderPresets[preset];
  expect(videoAutoencoderKeys(["encoder.conv_in.weight"], config).keyOf(ours)).toBe(theirs);
});
