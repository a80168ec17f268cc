/** Models that `patchwise train` made: opened from their folder, or made of parts that are in memory. */
import type { SamplerName } from "../../diffusion/samplers/index.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { UsageError } from "../../engine/errors.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { otherEvents } from "../../engine/runtime/other-events.ts";
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { readTrainedFolder, requirePlausibleCard } from "../../models/card-folder.ts";
import { type Card, modelFiles } from "../../models/card.ts";
import { codecParams, type ImageCodec } from "../../models/coders/image-codec.ts";
import { traceNetwork } from "../../models/network.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { checkedWeights, checkKeys } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import type { ImageModel, LatentDecoder, PromptEncoder } from "../image-model.ts";
import { imagePipeline, type Pipeline } from "../pipeline.ts";
import { recipeProcess, tokenProcess } from "../process.ts";
import { type OpenModelOptions, refuseOptions } from "./options.ts";

/**
 * Opens a folder that `patchwise train` wrote.
 *
 * @throws FormatError if a file is missing or damaged; UsageError if an option is given, since none applies
 */
export async function openTrainedFolder(
  folder: ModelFolder,
  options: OpenModelOptions,
): Promise<ImageModel> {
  refuseOptions(folder.name, options, []);
  const { card, tokenizer } = await readTrainedFolder(folder);
  const weights = await folder.weights(modelFiles.weights);
  return closingOnFailure([weights], async (opened) => {
    const file = card.latents ? modelFiles.autoencoder : card.tokens && modelFiles.vqgan;
    const autoencoder = file && (await folder.weights(file));
    if (autoencoder) opened.push(autoencoder);
    // Tracing the network is a task of its own in a page.
    await otherEvents();
    return trainedModel({ card, weights, tokenizer, autoencoder });
  });
}

/** The contents of a trained folder. */
export interface ModelParts {
  /** The content of `model.json`, as `readCard` reads it. */
  readonly card: Card;
  /** An open checkpoint, or arrays by name. */
  readonly weights: Weights | Readonly<Record<string, NdArray>>;
  /** For models that take prompts. */
  readonly tokenizer?: Tokenizer | undefined;
  /** The open `vae.safetensors` of models of latents, or `vqgan.safetensors` of models of tokens. */
  readonly autoencoder?: Weights | undefined;
}

/**
 * A pipeline on a trained model, in Node and in the browser. Disposing it closes the checkpoints.
 *
 * @example
 * const [card, bytes, words] = await Promise.all([json("model.json"), bytesOf("model.safetensors"), json("tokenizer.json")]);
 * const pipeline = createPipeline({
 *   backend: webBackend({ device: "webgpu" }),
 *   card: readCard("model.json", card),
 *   weights: await openSafetensors(bytesSource(bytes)),
 *   tokenizer: loadTokenizer(words),
 * });
 * @throws FormatError if the weights do not fit the card; UsageError if the tokenizer of a model that takes prompts is
 *   missing, or the autoencoder of a model of latents
 */
export function createPipeline({
  backend,
  ...model
}: ModelParts & { readonly backend: Backend }): Pipeline {
  return imagePipeline(trainedModel(model), backend);
}

/** The model of `createPipeline`, without a backend to run it. */
function trainedModel({ card, weights, tokenizer, autoencoder }: ModelParts): ImageModel {
  const { name, network, classes, sampling } = card;
  const { condition, prompt } = network;
  if (condition.kind === "text" && !(prompt && tokenizer)) {
    throw new UsageError(
      `${name} takes ${prompt ? "prompts, but there is no tokenizer to read them" : "embeddings of a text encoder that it does not hold"}; give ${prompt ? "the tokenizer.json that was written with it" : "a model that reads prompts itself"}.`,
    );
  }
  if (isOpened(weights)) requirePlausibleCard(card, weights);
  const { params } = traceNetwork(network, { drop: condition.kind === "text" });
  if (!isOpened(weights)) {
    checkKeys(params, { name, entries: new Map(Object.entries(weights)) });
  }
  return {
    name,
    network,
    weights: isOpened(weights) ? checkedWeights(params, weights) : arrayWeights(weights),
    process: processOf(card),
    classes: classes && new Map(classes.map((each, i) => [each, i])),
    encoder: tokenizer && prompt && tokenEncoder(name, tokenizer, prompt.length),
    decoder: decoderOf(card, autoencoder),
    defaults: sampling,
    close: async () => {
      if (isOpened(weights)) await weights.close();
      await autoencoder?.close();
    },
  };
}

/** Token ids for a network that has a prompt encoder inside. */
function tokenEncoder(name: string, tokenizer: Tokenizer, length: number): PromptEncoder {
  return {
    stages: [],
    ...(tokenizer.json && { tokenizer: tokenizer.json }),
    truncated(text) {
      const { lost } = tokenizer.encode(text, length);
      return lost === "" ? [] : [{ encoder: name, tokens: length, text: lost.trim() }];
    },
    unknownWords: (text) => tokenizer.unknownWords(text),
    encode: async (texts) =>
      texts.map((text) => {
        const { ids, mask } = tokenizer.encode(text, length);
        return {
          ids: ndarray("int64", [1, length], Array.from(ids)),
          mask: ndarray("bool", [1, length], Array.from(mask)),
          drop: ndarray("bool", [1], [text === "" ? 1 : 0]),
        };
      }),
  };
}

function processOf({ diffusion, network, sampling: { sampler } }: Card): ImageModel["process"] {
  return diffusion.process === "tokens"
    ? tokenProcess(diffusion, network.tokens!.codebook)
    : recipeProcess(diffusion, sampler as SamplerName);
}

function decoderOf(
  { name, latents, tokens }: Card,
  weights: Weights | undefined,
): LatentDecoder | undefined {
  const coder: ImageCodec | undefined = latents
    ? { kind: "kl", config: latents.autoencoder }
    : tokens && { kind: "vq", config: tokens.tokenizer };
  if (!coder) return undefined;
  if (!weights) {
    throw new UsageError(
      `${name} draws ${latents ? "latents, but there is no autoencoder" : "tokens, but there is no VQGAN"} to decode them; give the ${latents ? modelFiles.autoencoder : modelFiles.vqgan} that was written with it.`,
    );
  }
  requirePlausible(`The card of ${name}`, coder.config, weights);
  return { ...coder, weights: checkedWeights(codecParams(coder), weights) };
}

function isOpened(weights: ModelParts["weights"]): weights is Weights {
  return weights["entries"] instanceof Map;
}
