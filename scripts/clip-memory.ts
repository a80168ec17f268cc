/**
 * Decodes clips of 33 and 129 frames of 128×128 pixels with Wan2.1's video autoencoder, each in a process of its own, and prints the most
 * memory that each took: npm run test:clip-memory -- [width]
 *
 * Fails where they differ by more than 10 %. The weights are random; `width` is that of the decoder's last level, 96 as published, which
 * takes minutes.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { ndarray } from "../src/engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../src/engine/random/random.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../src/engine/runtime/stored-weight.ts";
import { videoAutoencoderPresets } from "../src/models/coders/video-autoencoder-config.ts";
import { videoAutoencoderParams } from "../src/models/coders/video-autoencoder.ts";
import { chunkCoder } from "../src/models/coders/video-chunks.ts";
import { initialize } from "../src/nn/params.ts";
import { decodeClipLatents } from "../src/pipelines/decode-clip.ts";
import type { ClipStages, Stage } from "../src/pipelines/image-model.ts";
import { stagePrograms } from "../src/pipelines/programs.ts";

const LENGTHS = [33, 129];
const [width = "96", asked] = process.argv.slice(2);

if (asked !== undefined) await decode(Number(asked));
else {
  const peaks = LENGTHS.map((frames) => {
    const script = ["scripts/run.mjs", "scripts/clip-memory.ts", width, String(frames)];
    const printed = execFileSync(process.execPath, script, { encoding: "utf8" });
    console.log(`${frames} frames: ${printed.trim()} MiB`);
    return Number(printed);
  });
  const growth = peaks[1]! / peaks[0]! - 1;
  console.log(`${(100 * growth).toFixed(1)} % more`);
  if (growth > 0.1) process.exitCode = 1;
}

/** Decodes random latents and prints the peak of the resident memory. */
async function decode(frames: number): Promise<void> {
  const published = videoAutoencoderPresets["Wan2.1-VAE"];
  const config = { ...published, encoderWidth: Number(width), decoderWidth: Number(width) };
  const weights = arrayWeights(initialize(videoAutoencoderParams(config), randomKey(1)));
  const coder = chunkCoder(config, "decode", [16, 16]);
  const stages = new Map<object, Stage>();
  const decoder: ClipStages = {
    coder,
    stage(graph) {
      const stage = stages.get(graph) ?? {
        name: "the decoder",
        kind: "decoder",
        graph: () => graph,
        weights,
      };
      stages.set(graph, stage);
      return stage;
    },
  };
  const programs = stagePrograms(nodeBackend("cpu"));
  const shape = [1, config.latentChannels, (frames - 1) / 4 + 1, 16, 16];
  const latents = ndarray("float32", shape, normal(fork(randomKey(2), "latents"), shape).data);
  const clip = await decodeClipLatents(latents, { decoder: () => decoder, run: programs.run });
  if (clip.frames !== frames) throw new Error(`${clip.frames} frames were decoded.`);
  await programs.dispose();
  const [, peak] = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))!;
  console.log(Math.round(Number(peak) / 1024));
}
