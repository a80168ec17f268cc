import path from "node:path";
import { expect, it } from "vitest";
import { type NdArray, zeros } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { videoAutoencoderIn } from "../../src/models/coders/video-autoencoder-checkpoint.ts";
import type { VideoAutoencoderConfig } from "../../src/models/coders/video-autoencoder-config.ts";
import { decodeClipLatents } from "../../src/pipelines/decode-clip.ts";
import { stagesOf } from "../../src/pipelines/image-model.ts";
import { stagePrograms } from "../../src/pipelines/programs.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { networkSchema } from "../../src/models/network.ts";

/** The autoencoder of the recording. */
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

it("decodes large frames in tiles, which are blended into about the same clip", async () => {
  const file = path.resolve(import.meta.dirname, "../fixtures/wan22_vae_small/weights.safetensors");
  const clipDecoder = videoAutoencoderIn(await openSafetensorsFile(file), tiny);
  const network = networkSchema().parse({
    kind: "latte",
    size: [4, 4],
    frames: 2,
    channels: 3,
    patch: 2,
    hidden: 8,
    depth: 2,
    heads: 1,
    mlpRatio: 2,
    learnedVariance: false,
    condition: { kind: "none" },
  });
  const stages = stagesOf({ network, weights: () => undefined, clipDecoder });
  const programs = stagePrograms(nodeBackend("cpu"));
  const sizes = new Set<string>();
  const decode = (latents: NdArray<"float32">, tile?: number) =>
    decodeClipLatents(latents, {
      decoder: (size) => {
        sizes.add(size.join("×"));
        return stages.clipCoder("decode", size)!;
      },
      run: programs.run,
      ...(tile !== undefined && { tile }),
    });
  // Latents that change slowly, as those of pictures do.
  const latents = zeros("float32", [1, 3, 3, 6, 10]);
  for (let i = 0; i < latents.data.length; i++) {
    latents.data[i] = Math.sin((i % 10) / 3) + Math.cos(Math.floor(i / 10) / 4);
  }
  const whole = await decode(latents);
  expect(sizes).toEqual(new Set(["6×10"]));
  sizes.clear();
  const tiled = await decode(latents, 6);
  expect(sizes).toEqual(new Set(["6×6"]));
  expect(tiled).toMatchObject({ frames: whole.frames, width: whole.width, height: whole.height });
  let [sum, spread] = [0, 0];
  const mean = whole.pixels.reduce((all, value) => all + value, 0) / whole.pixels.length;
  for (const [i, value] of whole.pixels.entries()) {
    sum += Math.abs(value - tiled.pixels[i]!);
    spread += Math.abs(value - mean);
  }
  expect(sum).toBeGreaterThan(0);
  expect(sum).toBeLessThan(spread / 4);
  await programs.dispose();
});
