/**
 * From a request to pictures: words → conditions → noise → steps → decoding. `drawPictures` is the whole way; the rest of
 * the file is how each of its steps is done.
 */
import { combine, rowsOf } from "../diffusion/arrays.ts";
import { type Denoiser, denoiserOf, sharedNetwork } from "../diffusion/denoiser.ts";
import { guided } from "../diffusion/guidance.ts";
import { keyedNoise } from "../diffusion/noise.ts";
import { thresholded } from "../diffusion/thresholding.ts";
import type { Picture } from "../data/dataset.ts";
import { picturesOf } from "../data/pixels.ts";
import { UsageError } from "../engine/errors.ts";
import { castArray, type NdArray } from "../engine/ndarray.ts";
import { randomKey } from "../engine/random.ts";
import type { Backend, Program } from "../engine/runtime/backend.ts";
import { tiledDecode } from "../models/autoencoder-kl.ts";
import { conditionsFor, type Told } from "./conditions.ts";
import { decoderGraph, networkGraph } from "./graphs.ts";
import type { ImageModel, LatentDecoder } from "./image-model.ts";
import type { DrawnPicture, GenerateRequest, GenerateStep, Pipeline } from "./pipeline.ts";
import { type Decided, decide, latentSize } from "./settings.ts";

/**
 * A pipeline on a model; programs are made when they are first needed, and kept.
 *
 * @throws UsageError when the model draws latents, and there is nothing that makes pictures of them
 */
export function imagePipeline(model: ImageModel, backend: Backend): Pipeline {
  const { channels } = model.network;
  if (!model.decoder && channels !== 1 && channels !== 3) {
    throw new UsageError(
      `${model.name} draws latents of ${channels} channels, and brings no autoencoder that makes pictures of them; give Stable Diffusion's as the VAE (--vae), a folder or a .safetensors file.`,
    );
  }
  const programs = compiledOnce(model, backend);
  return {
    name: model.name,
    settings: (request) => decide(request, model).settings,
    generate: (request) => drawPictures(request, model, programs),
    async dispose() {
      await programs.dispose();
      await model.close();
    },
  };
}

async function* drawPictures(
  request: GenerateRequest,
  model: ImageModel,
  programs: Programs,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { signal } = request;
  const runOptions = signal ? { signal } : {};
  const decided = decide(request, model);
  const { size, seed, count, sampler, steps } = decided.settings;
  const seeds = Array.from({ length: count }, (_, i) => seed + i);

  const [height, width] = latentSize(size, model);
  const program = await programs.network([height, width]);
  const denoise = denoiserFor(decided, model, (inputs) => program.run(inputs, runOptions));
  const noise = keyedNoise(seeds.map((each) => randomKey(each)));
  const levels = model.process.levels(steps);
  const shape = [count, model.network.channels, height, width];
  const start = combine([model.process.start(levels[0]!), noise("start", shape)]);
  const decode = (latents: NdArray) => decodedPictures(latents, model, programs, signal);

  const sampling = model.process.samplerNamed(sampler)(denoise, start, levels, { noise, signal });
  for (;;) {
    const next = await sampling.next();
    if (next.done) {
      const pictures = await decode(next.value);
      return pictures.map((picture, i) => ({ ...picture, seed: seeds[i]! }));
    }
    const { step, x0 } = next.value;
    yield { step, steps: levels.length - 1, preview: () => decode(x0) };
  }
}

/** Told what to draw, guided away from what to avoid where guidance is asked for, and kept in range. */
function denoiserFor(
  { settings, told, avoided }: Decided,
  model: ImageModel,
  run: Program["run"],
): Denoiser {
  const { guidance: scale, guidedChannels, count } = settings;
  const { parameterization, threshold } = model.process;
  const network = sharedNetwork(async (inputs) => (await run(inputs))["output"]!);
  const under = (what: Told) =>
    denoiserOf(network(conditionsFor(what, count, model)), parameterization, model.network);
  const channels = guidedChannels === undefined ? {} : { channels: guidedChannels };
  const denoise =
    scale === 1 ? under(told) : guided(under(told), under(avoided), { scale, ...channels });
  return threshold ? thresholded(denoise, threshold) : denoise;
}

/** Latents, or pixels in [−1, 1], as pictures; latents one by one, since decoding takes most of the memory. */
async function decodedPictures(
  latents: NdArray,
  { decoder }: ImageModel,
  programs: Programs,
  signal: AbortSignal | undefined,
): Promise<Picture[]> {
  if (!decoder) return picturesOf(latents);
  const pictures: Picture[] = [];
  for (let row = 0; row < latents.shape[0]!; row++) {
    signal?.throwIfAborted();
    const decode = async (tile: NdArray) => {
      const program = await programs.decoder(decoder, tile.shape.slice(2) as [number, number]);
      return (await program.run({ latents: tile }))["pixels"]!;
    };
    const pixels = await tiledDecode(decode, castArray(rowsOf(latents, row, 1), "float32"));
    pictures.push(...picturesOf(pixels));
  }
  return pictures;
}

interface Programs {
  /** The network for images of a height and width. */
  network(size: readonly [height: number, width: number]): Promise<Program>;
  /** For latents of a height and width. */
  decoder(decoder: LatentDecoder, size: readonly [height: number, width: number]): Promise<Program>;
  dispose(): Promise<void>;
}

function compiledOnce(model: ImageModel, backend: Backend): Programs {
  const made = new Map<string, Promise<Program>>();
  const once = (name: string, compile: () => Promise<Program>): Promise<Program> => {
    const program = made.get(name) ?? compile();
    made.set(name, program);
    // A failure is told to who asked, and may be gone the next time.
    program.catch(() => made.delete(name));
    return program;
  };
  return {
    network: (size) =>
      once(`network ${size.join("×")}`, () =>
        backend.compile(networkGraph(model.network, size), {
          weights: model.weights,
          prepack: true,
        }),
      ),
    decoder: ({ config, weights }, size) =>
      once(`decoder ${size.join("×")}`, () =>
        backend.compile(decoderGraph(config, size), { weights, prepack: true }),
      ),
    async dispose() {
      const programs = await Promise.allSettled(made.values());
      made.clear();
      for (const each of programs) if (each.status === "fulfilled") await each.value.dispose();
    },
  };
}
