/** A made-up Stable Diffusion 3 medium in the files that Stability and diffusers publish, for the suite `sd3`. */
import { createWriteStream, existsSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { float32ToFloat16 } from "../src/engine/arrays/convert.ts";
import { sizeOf } from "../src/engine/arrays/ndarray.ts";
import { leafName } from "../src/engine/graph/graph.ts";
import { normal, randomKey } from "../src/engine/random/random.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";
import { autoencoderKLPresets } from "../src/models/coders/autoencoder-kl-config.ts";
import { autoencoderKLParams } from "../src/models/coders/autoencoder-kl.ts";
import { clipTextParams, clipTextPresets } from "../src/models/text-encoders/clip-text.ts";
import type { ParamsRoot } from "../src/nn/params.ts";
import { openSafetensorsFile } from "../src/weights/index-node.ts";
import { storedWeights } from "../src/weights/stored.ts";
import { safetensorsStream } from "../src/weights/safetensors/write.ts";
import { type SD3Work, stepGraph } from "./sd3-work.ts";

/** What the names of the network begin with in Stability's files. */
const PREFIX = "model.diffusion_model.";

export interface SD3Files {
  /** The network in float16, 4.1 GB. */
  readonly model: string;
  /** The autoencoder and two text encoders in float16, 1.8 GB, without which some engines do not run the model. */
  readonly vae: string;
  readonly clipL: string;
  readonly clipG: string;
}

/** Writes the network unless another contender has written it, and returns its path. */
export async function sd3NetworkFile(workDir: string, work: SD3Work): Promise<string> {
  const path = join(workDir, "sd3.safetensors");
  if (existsSync(path)) return path;
  const network = stepGraph(work).parameters.map((leaf) => ({
    name: PREFIX + leafName(leaf),
    shape: leaf.shape as readonly number[],
  }));
  await writeNoise(path, network);
  return path;
}

/** Writes all files that another engine needs. */
export async function sd3Files(workDir: string, work: SD3Work): Promise<SD3Files> {
  const write = async (file: string, { declared }: ParamsRoot) => {
    const path = join(workDir, `${file}.safetensors`);
    const tensors = [...declared].map(([name, { tensor }]) => ({
      name,
      shape: tensor.shape as readonly number[],
    }));
    await writeNoise(path, tensors);
    return path;
  };
  return {
    model: await sd3NetworkFile(workDir, work),
    vae: await write("vae", autoencoderKLParams(autoencoderKLPresets["SD3-VAE"])),
    clipL: await write("clip_l", clipTextParams(clipTextPresets["CLIP-L"])),
    clipG: await write("clip_g", clipTextParams(clipTextPresets["CLIP-G"])),
  };
}

/** The weights of the network in a file that `sd3NetworkFile` wrote. */
export async function sd3Weights(path: string): Promise<WeightSource> {
  const file = await openSafetensorsFile(path);
  await file.close();
  return storedWeights(file, (name) => PREFIX + name);
}

/** A repeated list of random numbers in float16, small enough to avoid overflow. */
async function writeNoise(
  path: string,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
): Promise<void> {
  const values = normal(randomKey(6), [2 ** 22]).data.map((value) => 0.02 * value);
  const noise = new Uint16Array(values.length);
  float32ToFloat16(values, noise);
  const bytes = new Uint8Array(noise.buffer);
  const streamed = tensors.map(({ name, shape }, i) => ({
    name,
    shape,
    dtype: "float16" as const,
    *bytes() {
      // Each tensor begins elsewhere in the list, so that no two are equal.
      let from = (2 * 65_537 * i) % bytes.length;
      for (let left = 2 * sizeOf(shape); left > 0;) {
        const part = bytes.subarray(from, Math.min(bytes.length, from + left));
        yield part;
        left -= part.length;
        from = 0;
      }
    },
  }));
  await pipeline(Readable.from(safetensorsStream(streamed)), createWriteStream(path));
}
