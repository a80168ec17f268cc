/**
 * Trainings of what makes latents, or tokens, of pictures and back: a small autoencoder (Rombach et al., 2022) or a small
 * VQGAN (Rampas et al., 2022), by the squared error of pixels alone, without an adversary.
 */
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Picture } from "../../pictures/picture.ts";
import { pictureGrid } from "../../pictures/grid.ts";
import { type Batch, type Loader, openLoader } from "../../data/loading/loader-node.ts";
import { picturesOf, valuesOf } from "../../pictures/picture.ts";
import { UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { countMultiplyAdds } from "../../engine/passes/cost.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { castArray, type NdArray, sizeOf } from "../../engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../../engine/random/random.ts";
import { batch, resolve } from "../../engine/graph/shape.ts";
import { codecFolders } from "../../models/coders/image-codec-node.ts";
import { codecShape } from "../../models/coders/image-codec.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { type Autoencoder, configuredAutoencoder, type Told } from "./autoencoder.ts";
import { type AutoencoderTrainingConfig, pictureShape } from "../config/config.ts";
import { initialWeights } from "./initial-weights-node.ts";
import type { Arrays, Measures, Plan, Subject, Surroundings } from "./plan-node.ts";

export function autoencoderPlan(
  given: AutoencoderTrainingConfig,
  surroundings: Surroundings,
): Plan {
  // How well it reconstructs is always told, if need be of the pictures that it learns from.
  const { validation = { data: given.data, steps: 500, batches: 8, own: true }, ...rest } = given;
  const config = { ...rest, validation };
  return {
    config,
    recorded: given,
    subject: () => autoencoderSubject(config, surroundings),
    close: () => Promise.resolve(),
  };
}

type ReportingConfig = AutoencoderTrainingConfig & {
  readonly validation: NonNullable<AutoencoderTrainingConfig["validation"]>;
};

/** Batches of the training's own pictures that statistics are gathered of. */
const GATHERED = 8;

async function autoencoderSubject(
  config: ReportingConfig,
  { backend, out }: Surroundings,
): Promise<Subject> {
  const { training, seed, checkpoint } = config;
  const shape = pictureShape(config);
  const autoencoder = configuredAutoencoder(config.autoencoder, shape.channels);
  requireSize(config, autoencoder);
  const images = input("images", [batch, shape.channels, shape.height, shape.width]);
  const { loss, params, noise } = autoencoder.objective(images);
  const names = [...params.declared.keys()];
  const initial = await initialWeights(
    params,
    fork(randomKey(seed), "weights"),
    undefined,
    training.from && (await weightsIn(training.from, autoencoder.kind)),
    autoencoder.publishedName,
  );
  const run = async (graph: Parameters<typeof backend.compile>[0], weights: Arrays) =>
    backend.compile(graph, {
      weights: arrayWeights(weights),
      ...(training.threads && { threads: training.threads }),
    });
  const shown = await firstBatches(config, GATHERED);
  const pixelsOf = ({ pixels }: Pick<Batch, "pixels">) => valuesOf(pixels, shape);
  /** The averages with what is gathered of pictures, which no step learns. */
  const whole = async (averages: Arrays): Promise<Told> => {
    const program = await run(graphOf(autoencoder.gathered(images)), averages);
    const gathered: Record<string, NdArray>[] = [];
    for (const each of shown) gathered.push({ ...(await program.run({ images: pixelsOf(each) })) });
    await program.dispose();
    return autoencoder.whole(averages, gathered);
  };
  const reconstructed = async (
    averages: Arrays,
    batches: readonly Batch[],
  ): Promise<readonly Reconstructed[]> => {
    const told = await whole(averages);
    const program = await run(graphOf(autoencoder.reconstruction(images, told)), told.weights);
    const made: Reconstructed[] = [];
    for (const each of batches) {
      const { pixels, tokens } = await program.run({ images: pixelsOf(each) });
      made.push({ truth: each.pixels, pixels: pixels!, tokens });
    }
    await program.dispose();
    return made;
  };
  return {
    kind: "autoencoder",
    loss,
    trained: Object.fromEntries(names.map((name) => [name, params.declared.get(name)!.tensor])),
    initial: () => initial(names),
    fixed: () => undefined,
    parameters: names.reduce(
      (sum, name) => sum + sizeOf(resolve(params.declared.get(name)!.tensor.shape, undefined)),
      0,
    ),
    multiplyAdds: () => countMultiplyAdds(graphOf({ loss }), 1),
    begin: () => Promise.resolve(),
    inputs(each, key) {
      const values = pixelsOf(each);
      if (!noise) return { images: values };
      const latents = resolve(noise.shape, values.shape[0]);
      return { images: values, noise: normal(fork(key, "noise"), latents) };
    },
    async validator(loader) {
      const batches = await taken(loader, config.validation.batches);
      return async (averages) => measures(await reconstructed(averages, batches), autoencoder);
    },
    async sample(_reached, averages) {
      const [made] = await reconstructed(averages, shown.slice(0, 1));
      const truth = picturesOf(pixelsOf(shown[0]!));
      return comparison(truth, picturesOf(made!.pixels), config.samples.pictures);
    },
    async write(reached, averages) {
      const told = await whole(averages);
      const folder = join(out, codecFolders[autoencoder.kind]);
      await mkdir(folder, { recursive: true });
      const stored = Object.entries(told.weights).map(
        ([name, array]) =>
          [autoencoder.publishedName(name), castArray(array, checkpoint.weights)] as const,
      );
      await writeSafetensors(join(folder, weightsFile), stored, [["format", "pt"]]);
      const fields = { ...autoencoder.fields(told), trained: reached };
      await writeFileAtomic(
        join(folder, "config.json"),
        new TextEncoder().encode(`${JSON.stringify(fields, null, 2)}\n`),
      );
    },
  };
}

async function weightsIn(from: string, kind: Autoencoder["kind"]): Promise<string> {
  const isFolder = (await stat(from).catch(() => undefined))?.isDirectory();
  return isFolder ? join(from, codecFolders[kind], weightsFile) : from;
}

/** As diffusers names the weights of its models. */
const weightsFile = "diffusion_pytorch_model.safetensors";

function requireSize(config: AutoencoderTrainingConfig, autoencoder: Autoencoder): void {
  const { height, width } = pictureShape(config);
  const { factor } = codecShape(autoencoder.coder);
  if (height % factor === 0 && width % factor === 0) return;
  const near = [height, width].map((side) => Math.max(1, Math.round(side / factor)) * factor);
  throw new UsageError(
    `picture.size is ${height}×${width}, but the autoencoder makes one latent of ${factor}×${factor} pixels; give multiples of ${factor}, such as ${near.join("×")}, or fewer levels.`,
  );
}

/** Pictures of the training, the same each time. */
async function firstBatches(
  { data, training, ...config }: AutoencoderTrainingConfig,
  count: number,
): Promise<readonly Batch[]> {
  const shape = pictureShape(config);
  return taken(await openLoader({ data, shape, batch: training.batch, seed: 0, from: 0 }), count);
}

async function taken(loader: Loader, count: number): Promise<readonly Batch[]> {
  const batches: Batch[] = [];
  try {
    for (let i = 0; i < count; i++) batches.push(await loader.next());
  } finally {
    await loader.close();
  }
  return batches;
}

interface Reconstructed {
  /** Bytes of the pictures. */
  readonly truth: Uint8Array;
  /** [B, C, H, W] about in [−1, 1] */
  readonly pixels: NdArray;
  readonly tokens: NdArray | undefined;
}

/** Of pictures as bytes: the mean of their PSNR, and of a codebook how many of the codes were of use. */
function measures(made: readonly Reconstructed[], { coder }: Autoencoder): Measures {
  const errors: number[] = [];
  const used = new Map<bigint, number>();
  for (const { truth, pixels, tokens } of made) {
    let at = 0;
    for (const picture of picturesOf(pixels)) {
      const error = picture.pixels.reduce((sum, value) => sum + (value - truth[at++]!) ** 2, 0);
      errors.push(error / picture.pixels.length);
    }
    for (const token of (tokens?.data ?? []) as Iterable<bigint>) {
      used.set(token, (used.get(token) ?? 0) + 1);
    }
  }
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  // Of a picture without any error, as if one value in all were off by one.
  const psnr = errors.map((error) => 10 * Math.log10(255 ** 2 / Math.max(error, 1e-6)));
  const reconstruction = { loss: mean(errors) / 127.5 ** 2, psnr: mean(psnr) };
  if (coder.kind === "kl") return reconstruction;
  const all = [...used.values()].reduce((a, b) => a + b, 0);
  const entropy = [...used.values()].reduce((sum, n) => sum - (n / all) * Math.log(n / all), 0);
  return {
    ...reconstruction,
    codebookUse: used.size / coder.config.codebook,
    perplexity: Math.exp(entropy),
  };
}

/** Pictures, and below each what became of it. */
function comparison(truth: readonly Picture[], made: readonly Picture[], count: number): Picture {
  const columns = Math.min(count, truth.length, 12);
  const rows: Picture[] = [];
  // Whole rows, so that each picture stands above its own.
  const whole = Math.min(count, truth.length) - (Math.min(count, truth.length) % columns);
  for (let from = 0; from < whole; from += columns) {
    rows.push(...truth.slice(from, from + columns), ...made.slice(from, from + columns));
  }
  return pictureGrid(rows, columns);
}
