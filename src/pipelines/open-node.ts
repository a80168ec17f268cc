/** Models on disk, in every layout that is known: a shipped one, a trained folder, diffusers' folder, a single file. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError, UsageError } from "../engine/errors.ts";
import { nearestNames } from "../engine/nearest-names.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import type { NodeDevice } from "../engine/runtime/ort-session-node.ts";
import { modelFiles, readCard } from "../models/card.ts";
import { ditPresets } from "../models/dit.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { checkTables } from "../weights/check-tables.ts";
import { quote } from "../weights/json.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { openDiffusersFolder } from "./diffusers-node.ts";
import { checkpointConfig, ditDefaults, ditRecipe } from "./dit-checkpoint.ts";
import { closingOnFailure, exists, readJson } from "../weights/files-node.ts";
import { tracedForDrawing } from "./graphs.ts";
import type { ImageModel } from "./image-model.ts";
import { imagePipeline } from "./image-pipeline.ts";
import type { Pipeline } from "./pipeline.ts";
import { recipeProcess } from "./process.ts";
import { trainedModel } from "./trained-model.ts";
import { openVAE } from "./vae-node.ts";

/** Models that come with the package, a folder each. */
const shippedFolder = fileURLToPath(new URL("../../models", import.meta.url));

export interface OpenModelOptions {
  /** Stable Diffusion's autoencoder, a folder or a file, for models of latents that bring none. */
  readonly vae?: string | undefined;
}

export interface OpenPipelineOptions extends OpenModelOptions {
  /** "cpu" unless given. */
  readonly device?: NodeDevice | undefined;
}

/**
 * A pipeline on a model.
 *
 * @param source name of a shipped model, a folder that `patchwise train` wrote, a folder in diffusers' layout, or a
 *   `.safetensors` file of facebookresearch/DiT
 * @example const pipeline = await openPipeline("emoji");
 * @throws UsageError when there is no such model; FormatError when its files are not sound; DeviceError when the machine
 *   has no such device
 */
export async function openPipeline(
  source: string,
  { device = "cpu", ...options }: OpenPipelineOptions = {},
): Promise<Pipeline> {
  const backend = nodeBackend(device);
  const model = await openModel(source, options);
  return closingOnFailure([model], async () => imagePipeline(model, backend));
}

/** The same without a backend: what there is to draw with, open but not running; also what lacks an autoencoder. */
export async function openModel(
  source: string,
  options: OpenModelOptions = {},
): Promise<ImageModel> {
  const shipped = await shippedModels();
  if (shipped.includes(source)) return openTrainedFolder(join(shippedFolder, source));
  const status = await stat(source).catch(() => undefined);
  if (status?.isDirectory()) return openFolder(source, options);
  if (status) return openFile(source, options);
  if (Object.hasOwn(ditPresets, source)) {
    throw new UsageError(
      `${source} is the name of an architecture, which has no weights here; give a folder or file of a trained one.`,
    );
  }
  const near = nearestNames(source, shipped);
  const names = near.length > 0 ? near : shipped;
  throw new UsageError(
    `There is no model ${quote(source)}: neither a folder nor a file has this path, and ${names.length > 0 ? `the models that come along are called ${names.join(", ")}` : "no model comes along"}.`,
  );
}

/** Names of the models that come with the package. */
export async function shippedModels(): Promise<string[]> {
  const names = await readdir(shippedFolder).catch(() => []);
  const found: string[] = [];
  for (const name of names) {
    if (await exists(join(shippedFolder, name, modelFiles.card))) found.push(name);
  }
  return found.toSorted();
}

async function openFolder(path: string, options: OpenModelOptions): Promise<ImageModel> {
  if (await exists(join(path, modelFiles.card))) return openTrainedFolder(path);
  if (await exists(join(path, "model_index.json"))) return openDiffusersFolder(path, options.vae);
  throw new UsageError(
    `${path} holds neither a ${modelFiles.card}, as patchwise train writes it, nor a model_index.json, as diffusers does; give the folder of a model.`,
  );
}

async function openTrainedFolder(path: string): Promise<ImageModel> {
  const cardFile = join(path, modelFiles.card);
  const card = readCard(cardFile, await readJson(cardFile));
  const tokenizerFile = join(path, modelFiles.tokenizer);
  const tokenizer = card.network.prompt && loadTokenizer(await readJson(tokenizerFile));
  const weights = await openSafetensorsFile(join(path, modelFiles.weights));
  return closingOnFailure([weights], async (opened) => {
    const autoencoder =
      card.latents && (await openSafetensorsFile(join(path, modelFiles.autoencoder)));
    if (autoencoder) opened.push(autoencoder);
    return trainedModel({ card, weights, tokenizer, autoencoder });
  });
}

async function openFile(path: string, { vae }: OpenModelOptions): Promise<ImageModel> {
  checkExtension(path);
  const folder = dirname(resolve(path));
  if (basename(path) === modelFiles.weights && (await exists(join(folder, modelFiles.card)))) {
    throw new UsageError(
      `${path} is the weights alone; give their folder, ${folder}, where ${modelFiles.card} says what they are.`,
    );
  }
  const weights = await openSafetensorsFile(path);
  return closingOnFailure([weights], async (opened) => {
    const config = checkpointConfig(weights);
    const network = { kind: "dit" as const, ...config };
    const { params } = tracedForDrawing(network);
    const source = checkedWeights(params, weights);
    await checkTables(params, weights);
    const decoder = vae === undefined ? undefined : await openVAE(vae, config.channels);
    if (decoder) opened.push(decoder.file);
    return {
      name: basename(path, extname(path)),
      network,
      weights: source,
      process: recipeProcess(ditRecipe, ditDefaults.sampler),
      decoder,
      defaults: ditDefaults,
      close: async () => {
        for (const file of opened) await file.close();
      },
    };
  });
}

/** What else people have at hand. */
const pickled = new Set([".pt", ".pth", ".ckpt", ".bin"]);

function checkExtension(path: string): void {
  const extension = extname(path).toLowerCase();
  if (extension === ".safetensors" || path.endsWith(".safetensors.index.json")) return;
  if (pickled.has(extension)) {
    throw new FormatError(
      `${path} is a PyTorch pickle, which can run code of its own and is not read; convert it in Python: safetensors.torch.save_file(torch.load(${quote(basename(path))}, weights_only=True), "${basename(path, extname(path))}.safetensors").`,
    );
  }
  throw new UsageError(
    `${path} is no model file that is known; give a .safetensors file, or the folder of a model.`,
  );
}
