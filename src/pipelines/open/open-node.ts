/** Opens models on disk and on the Hub in every layout: a bundled model, a trained folder, diffusers' folder, a single file. */
import { stat } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { FormatError, nearestNames, quote, UsageError } from "../../engine/errors.ts";
import { availableMemory } from "../../engine/runtime/available-memory-node.ts";
import { kinds, type OptionKinds, requireKind, requireOptions } from "../../engine/options.ts";
import { requirePackageFile } from "../../engine/package-node.ts";
import { nodeBackend } from "../../engine/runtime/ort-node.ts";
import type { NodeDevice } from "../../engine/runtime/ort-session-node.ts";
import { shippedModel, shippedModels } from "../../models/card-node.ts";
import { modelFiles } from "../../models/card.ts";
import { networkPresets } from "../../models/network.ts";
import { checkedWeights, checkTables } from "../../weights/check-keys.ts";
import type { HubOptions } from "../../weights/hub/hub-node.ts";
import { parseHubId } from "../../weights/hub/id.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { diskFolder, exists } from "../../weights/sources/folder-node.ts";
import { type ImageModel, tracedForDrawing } from "../image-model.ts";
import { imagePipeline, type Pipeline } from "../pipeline.ts";
import { diffusersIndex, type GivenVAE, openDiffusersFolder, openVAE } from "./diffusers.ts";
import { folderAtFault } from "./folder-at-fault-node.ts";
import { downloadModel } from "./hub-model-node.ts";
import { type ChosenLora, withLoras } from "./lora-node.ts";
import { openKinds, type OpenModelOptions, refuseOptions } from "./options.ts";
import { publishedModel, unwrapped } from "./published-checkpoint.ts";
import { splitModels } from "./split-models.ts";
import { openSplitModel, splitNetworkFile, vaeAt } from "./split-node.ts";
import { openTrainedFolder } from "./trained-model.ts";
import { networkIn } from "./whole-file.ts";

export interface OpenPipelineOptions extends OpenModelOptions {
  /** LoRAs to merge into the network. */
  readonly loras?: readonly ChosenLora[] | undefined;
  /** "cpu" unless given. */
  readonly device?: NodeDevice | undefined;
  /**
   * Runs the programs in a separate process, so that this process' event loop stays free while it draws, as servers need; false unless
   * given.
   */
  readonly worker?: boolean | undefined;
  /** Threads for the CPU's work; as many as there are cores unless given. */
  readonly threads?: number | undefined;
  /** Bytes that drawing on the CPU may take; the machine's available memory unless given. */
  readonly memory?: number | undefined;
  /** Options of downloads from the Hub. */
  readonly hub?: HubOptions | undefined;
}

const modelKinds: OptionKinds<Pick<OpenPipelineOptions, "loras"> & OpenModelOptions> = {
  ...openKinds,
  loras: kinds.list,
};

const pipelineKinds: OptionKinds<OpenPipelineOptions> = {
  ...modelKinds,
  device: kinds.text,
  worker: kinds.flag,
  threads: kinds.count,
  memory: kinds.bytes,
  hub: kinds.object,
};

/**
 * Opens a model and makes a pipeline on it.
 *
 * @param source name of a bundled model; a folder that `patchwise train` wrote; a folder in diffusers' layout; a
 *   `.safetensors` file of Stable Diffusion 3, facebookresearch/DiT, baofff/U-ViT or openai/guided-diffusion; or one of the
 *   latter two on the Hugging Face Hub, as `owner/name`, `owner/name@revision` or `owner/name:file.safetensors`, which is
 *   downloaded into the shared cache
 * @example const pipeline = await openPipeline("emoji");
 * @throws UsageError if there is no such model or option; FormatError if its files are damaged; DeviceError if the machine has no
 *   such device
 */
export async function openPipeline(
  source: string,
  given: OpenPipelineOptions = {},
): Promise<Pipeline> {
  requireOptions("openPipeline", given, pipelineKinds);
  const { device = "cpu", worker = false, threads, memory, hub, ...options } = given;
  const backend = nodeBackend(device, { worker, threads });
  // Other devices have memory of their own.
  const most = device === "cpu" ? (memory ?? availableMemory()) : memory;
  const model = await openModel(source, options, hub);
  return closingOnFailure([model], async () => imagePipeline(model, backend, { memory: most }));
}

/** Opens a model without a backend to run it. The model may lack parts that drawing needs, such as an autoencoder. */
export async function openModel(
  source: string,
  given: Pick<OpenPipelineOptions, "loras"> & OpenModelOptions = {},
  hub?: HubOptions,
): Promise<ImageModel> {
  requireKind("the name, folder or file of the model", source, kinds.text);
  requireOptions("openModel", given, modelKinds);
  const { loras = [], ...options } = given;
  const model = await openSource(source, options, hub);
  return closingOnFailure([model], () => withLoras(model, loras, hub));
}

async function openSource(
  source: string,
  options: OpenModelOptions,
  hub: HubOptions | undefined,
): Promise<ImageModel> {
  const shippedPath = await shippedModel(source);
  if (shippedPath !== undefined) return openTrainedFolder(diskFolder(shippedPath), options);
  const status = await stat(source).catch(() => undefined);
  if (status?.isDirectory()) return openFolder(source, options);
  if (status) return openFile(source, options);
  if (networkPresets().has(source)) {
    throw new UsageError(
      `${source} is the name of an architecture without weights; give a folder or file of a trained model.`,
    );
  }
  const id = parseHubId(source);
  if (id) {
    if (id.file !== undefined) checkExtension(id.file);
    const model = await openSource(await downloadModel(id, options, hub), options, hub);
    return { ...model, name: source };
  }
  requirePackageFile("models");
  const shipped = await shippedModels();
  const near = nearestNames(source, shipped);
  const names = near.length > 0 ? near : shipped;
  throw new UsageError(
    `There is no model ${quote(source)}: no folder or file has this path, and ${names.length > 0 ? `the bundled models are called ${names.join(", ")}` : "there is no bundled model"}.`,
  );
}

async function openFolder(path: string, options: OpenModelOptions): Promise<ImageModel> {
  const folder = diskFolder(path);
  if (await folder.has(modelFiles.card)) return openTrainedFolder(folder, options);
  if (await folder.has(diffusersIndex)) {
    return openDiffusersFolder(folder, options, givenVAE(options));
  }
  const networkFile = await splitNetworkFile(path);
  if (networkFile !== undefined)
    return { ...(await openFile(networkFile, options)), name: folder.basename };
  throw await folderAtFault(path, folder);
}

async function openFile(path: string, options: OpenModelOptions): Promise<ImageModel> {
  checkExtension(path);
  const folder = dirname(resolve(path));
  if (basename(path) === modelFiles.weights && (await exists(join(folder, modelFiles.card)))) {
    throw new UsageError(
      `${path} holds weights only; give their folder, ${folder}, whose ${modelFiles.card} describes them.`,
    );
  }
  const weights = unwrapped(await openSafetensorsFile(path));
  return closingOnFailure([weights], async (opened) => {
    const { stored, ...published } = publishedModel(networkIn(weights), options.heads);
    const { network } = published;
    const { params } = tracedForDrawing(network);
    const source = checkedWeights(params, stored);
    const row = published.missingParts === undefined ? splitModels[network.kind] : undefined;
    const close = () => closeAll(opened);
    if (row) {
      const parts = { network, weights: source, close };
      return openSplitModel(row, { path, file: weights, parts }, options, opened);
    }
    refuseOptions(path, options, ["vae", "heads"]);
    await checkTables(params, stored);
    const vae = givenVAE(options);
    const decoder = vae && (await openVAE(vae, network));
    if (decoder) opened.push(decoder.file);
    return {
      name: basename(path, extname(path)),
      ...published,
      weights: source,
      decoder,
      close,
    };
  });
}

/** The autoencoder that an option gives. */
function givenVAE({ vae }: OpenModelOptions): GivenVAE | undefined {
  return vae === undefined ? undefined : vaeAt(vae);
}

/** Extensions of PyTorch's pickles. */
const pickled = new Set([".pt", ".pth", ".ckpt", ".bin"]);

function checkExtension(path: string): void {
  const extension = extname(path).toLowerCase();
  if (extension === ".safetensors" || extension === ".gguf") return;
  if (path.endsWith(".safetensors.index.json")) return;
  if (pickled.has(extension)) {
    throw new FormatError(
      `${path} is a PyTorch pickle, which can run code and is therefore not read; convert it in Python: safetensors.torch.save_file(torch.load(${quote(basename(path))}, weights_only=True), "${basename(path, extname(path))}.safetensors").`,
    );
  }
  if (extension === ".sft") {
    throw new UsageError(
      `${path} has an older name of safetensors; rename it to ${basename(path, extname(path))}.safetensors.`,
    );
  }
  if (basename(path) === diffusersIndex) {
    throw new UsageError(
      `${path} only lists the parts of a model; give its folder, ${dirname(resolve(path))}.`,
    );
  }
  if (extension === ".yaml" || extension === ".yml") {
    throw new UsageError(
      `${path} looks like the config of a training, which holds no model; train it with patchwise train ${path}, and give the folder that it writes.`,
    );
  }
  throw new UsageError(
    `${path} is not a model file of a known kind; give a .safetensors or .gguf file, or the folder of a model.`,
  );
}
