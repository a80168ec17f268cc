/** A trained folder behind an address: a page draws with what `patchwise train` wrote, served as it is. */
import { FormatError, PatchwiseError } from "../engine/errors.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { modelFiles, readCard } from "../models/card.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { openSafetensors, type Weights } from "../weights/safetensors.ts";
import { bytesSource } from "../weights/source.ts";
import type { Pipeline } from "./pipeline.ts";
import { createPipeline } from "./trained-model.ts";

export interface OpenUrlOptions {
  readonly backend: Backend;
  /** Stands in for the global fetch, e.g. to add a cache. */
  readonly fetch?: typeof fetch;
  readonly signal?: AbortSignal;
}

/**
 * A pipeline on a trained folder that a server serves, in the browser and in Node; its files are loaded whole.
 *
 * @param folder address of the folder, with or without a slash at its end
 * @example const pipeline = await openPipelineUrl("/models/emoji/", { backend: webBackend({ device: "webgpu" }) });
 * @throws PatchwiseError when a file cannot be had; FormatError when one is not sound
 */
export async function openPipelineUrl(
  folder: string | URL,
  { backend, fetch: load = fetch, signal }: OpenUrlOptions,
): Promise<Pipeline> {
  const base = new URL(folder, globalThis.location?.href);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const get = async (file: string): Promise<Response> => {
    const url = new URL(file, base);
    // A query may carry the signature that opens the whole folder.
    url.search = base.search;
    const response = await load(url, signal ? { signal } : {});
    if (response.ok) return response;
    throw new PatchwiseError(
      `${base.href} gives no ${file} (HTTP ${response.status}); give the address of a folder that patchwise train wrote.`,
    );
  };
  const json = async (file: string): Promise<unknown> => {
    const text = await (await get(file)).text();
    try {
      return JSON.parse(text);
    } catch {
      throw new FormatError(
        `${new URL(file, base).href} is not JSON; give the address of a folder that patchwise train wrote.`,
      );
    }
  };
  const weights = async (file: string): Promise<Weights> =>
    openSafetensors(bytesSource(await (await get(file)).arrayBuffer(), file));

  const card = readCard(modelFiles.card, await json(modelFiles.card));
  const [network, tokenizer, autoencoder] = await Promise.all([
    weights(modelFiles.weights),
    card.network.prompt && json(modelFiles.tokenizer).then(loadTokenizer),
    card.latents && weights(modelFiles.autoencoder),
  ]);
  return createPipeline({ backend, card, weights: network, tokenizer, autoencoder });
}
