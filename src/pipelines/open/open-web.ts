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
import { isFileAddress, openFileUrl, type UrlParts } from "./split-url.ts";
import { openTrainedFolder } from "./trained-model.ts";

export interface OpenUrlOptions
  extends UrlOptions, Pick<OpenModelOptions, "without" | "promptTokens">, UrlParts {
  /** The backend that runs the model: `webBackend` in a page, `nodeBackend` in Node. */
  readonly backend: Backend;
}

const urlKinds: OptionKinds<OpenUrlOptions> = {
  backend: kinds.backend,
  without: openKinds.without,
  promptTokens: openKinds.promptTokens,
  textEncoders: kinds.texts,
  vae: kinds.text,
  tokenizers: kinds.text,
  fetch: kinds.callback,
  headers: kinds.object,
  signal: kinds.abortSignal,
  onProgress: kinds.callback,
};

/**
 * Opens a model by its URL, in the browser and in Node, and makes a pipeline on it: a folder that `patchwise train` wrote, a folder in
 * diffusers' layout, or the file of a network (`.safetensors`, `.gguf`) with the addresses of its other parts, as ComfyUI has
 * them, of which a checkpoint holds all but the tokenizers. Files of weights of up to 256 MiB are loaded whole; of larger ones, each tensor is fetched when its program is compiled, and of
 * a text encoder's table of tokens only the rows of a prompt, for which the server must support range requests.
 *
 * @param address of the folder, with or without a slash at its end, or of the network's file
 * @example const pipeline = await openPipelineUrl("/models/emoji/", { backend: webBackend({ device: "webgpu" }) });
 * @example
 * const pipeline = await openPipelineUrl("/comfy/diffusion_models/flux-2-klein-4b-Q4_K.gguf", {
 *   backend, textEncoders: ["/comfy/text_encoders/qwen3-4b-Q4_K.gguf"], vae: "/comfy/vae/flux2-vae.safetensors",
 * });
 * @throws PatchwiseError if a file cannot be loaded; FormatError if one is damaged; UsageError if an option does not apply
 */
export async function openPipelineUrl(
  address: string | URL,
  options: OpenUrlOptions,
): Promise<Pipeline> {
  requireKind("openPipelineUrl: the address", address, kinds.address);
  requireOptions("openPipelineUrl", options, urlKinds);
  requireKind("openPipelineUrl: backend", options.backend, kinds.backend);
  const { backend, without, promptTokens, textEncoders, vae, tokenizers, ...loading } = options;
  const parts = { textEncoders, vae, tokenizers };
  const given = { without, promptTokens };
  const model = isFileAddress(address)
    ? await openFileUrl(address, { ...given, ...parts }, loading)
    : await openFolder(urlFolder(address, loading), { ...given, ...parts });
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
