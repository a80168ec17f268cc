/** Opens models by URL: a static file server is enough. */
import { PatchwiseError } from "../../engine/errors.ts";
import { kinds, type OptionKinds, requireKind, requireOptions } from "../../engine/options.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { modelFiles } from "../../models/card.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import { memoryFolder } from "../../weights/sources/folder-memory.ts";
import { urlFolder } from "../../weights/sources/folder-url.ts";
import type { UrlOptions } from "../../weights/sources/url.ts";
import type { ImageModel } from "../image-model.ts";
import { imagePipeline, type Pipeline } from "../pipeline.ts";
import { diffusersIndex, openDiffusersFolder } from "./diffusers.ts";
import { openKinds, type OpenModelOptions } from "./options.ts";
import { openTrainedFolder } from "./trained-model.ts";

export interface OpenUrlOptions
  extends UrlOptions, Pick<OpenModelOptions, "without" | "promptTokens"> {
  /** The backend that runs the model: `webBackend` in a page, `nodeBackend` in Node. */
  readonly backend: Backend;
}

const urlKinds: OptionKinds<OpenUrlOptions> = {
  backend: kinds.backend,
  without: openKinds.without,
  promptTokens: openKinds.promptTokens,
  fetch: kinds.callback,
  headers: kinds.object,
  signal: kinds.abortSignal,
  onProgress: kinds.callback,
};

/**
 * Opens a folder by its URL, in the browser and in Node, and makes a pipeline on it. The folder is one that `patchwise train`
 * wrote, or a DiT or Stable Diffusion 3 in diffusers' layout. Weights of up to 256 MiB are loaded whole; larger ones are
 * loaded tensor by tensor, for which the server must support range requests.
 *
 * @param address of the folder, with or without a slash at its end
 * @example const pipeline = await openPipelineUrl("/models/emoji/", { backend: webBackend({ device: "webgpu" }) });
 * @throws PatchwiseError if a file cannot be loaded; FormatError if one is damaged; UsageError if an option does not apply
 */
export async function openPipelineUrl(
  address: string | URL,
  options: OpenUrlOptions,
): Promise<Pipeline> {
  requireKind("openPipelineUrl: the address", address, kinds.address);
  requireOptions("openPipelineUrl", options, urlKinds);
  requireKind("openPipelineUrl: backend", options.backend, kinds.backend);
  const { backend, without, promptTokens, ...loading } = options;
  const model = await openFolder(urlFolder(address, loading), { without, promptTokens });
  return closingOnFailure([model], async () => imagePipeline(model, backend));
}

/**
 * Opens a model from the contents of its files, in the browser and in Node.
 *
 * @param files contents by name: `model.json`, `model.safetensors` and the other files of a folder that `patchwise train` wrote
 * @example
 * const model = await trainModel({ pictures, steps: 1000, backend });
 * const pipeline = await openPipelineBytes(modelBytes(model), { backend });
 * @throws FormatError if a file is missing or damaged
 */
export async function openPipelineBytes(
  files: Readonly<Record<string, Uint8Array>>,
  options: {
    /** The backend that runs the model: `webBackend` in a page, `nodeBackend` in Node. */
    readonly backend: Backend;
  },
): Promise<Pipeline> {
  requireOptions("openPipelineBytes", options, { backend: kinds.backend });
  const { backend } = options;
  requireKind("openPipelineBytes: backend", backend, kinds.backend);
  const model = await openFolder(memoryFolder(files), {});
  return closingOnFailure([model], async () => imagePipeline(model, backend));
}

async function openFolder(folder: ModelFolder, options: OpenModelOptions): Promise<ImageModel> {
  if (await folder.has(modelFiles.card)) return openTrainedFolder(folder, options);
  if (await folder.has(diffusersIndex)) return openDiffusersFolder(folder, options);
  throw new PatchwiseError(
    `${folder.name} has neither a ${modelFiles.card}, as patchwise train writes it, nor a ${diffusersIndex}, as diffusers does; give the address of a model's folder.`,
  );
}
