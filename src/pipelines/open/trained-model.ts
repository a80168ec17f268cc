/** Pipelines on models that `patchwise train` made. */
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { UsageError } from "../../engine/errors.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import type { Backend, WeightSource } from "../../engine/runtime/backend.ts";
import { type Card, modelFiles } from "../../models/card.ts";
import type { SamplerName } from "../../diffusion/samplers/index.ts";
import { traceNetwork } from "../../models/network.ts";
import { codecParams, type ImageCodec } from "../../models/coders/image-codec.ts";
import type { PromptEncoderConfig } from "../../models/text-encoders/prompt-encoder.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { checkedWeights, checkKeys } from "../../weights/check-keys.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { ImageModel, LatentDecoder, PromptEmbedder } from "../image-model.ts";
import { imagePipeline } from "../image-pipeline.ts";
import type { Pipeline } from "../pipeline.ts";
import { recipeProcess, tokenProcess } from "../process.ts";

/** What a trained folder holds. */
export interface TrainedModel {
  readonly card: Card;
  /** An open checkpoint, or arrays by name. */
  readonly weights: Weights | Readonly<Record<string, NdArray>>;
  /** Of models that take prompts. */
  readonly tokenizer?: Tokenizer | undefined;
  /** Of models of latents or tokens: `vae.safetensors` or `vqgan.safetensors`, open. */
  readonly autoencoder?: Weights | undefined;
}

/**
 * A pipeline on a trained model, in Node and in the browser; it closes the checkpoints when it is disposed.
 *
 * @example
 * const [card, bytes, words] = await Promise.all([json("model.json"), bytesOf("model.safetensors"), json("tokenizer.json")]);
 * const pipeline = createPipeline({
 *   backend: webBackend({ device: "webgpu" }),
 *   card: readCard("model.json", card),
 *   weights: await openSafetensors(bytesSource(bytes)),
 *   tokenizer: loadTokenizer(words),
 * });
 * @throws FormatError when the weights do not fit the card; UsageError when it takes prompts and has no tokenizer, or
 * draws latents and has no autoencoder
 */
export function createPipeline({
  backend,
  ...model
}: TrainedModel & { readonly backend: Backend }): Pipeline {
  return imagePipeline(trainedModel(model), backend);
}

/** The same without a backend. */
export function trainedModel({ card, weights, tokenizer, autoencoder }: TrainedModel): ImageModel {
  const { name, network, classes, sampling } = card;
  const { condition, prompt } = network;
  if (condition.kind === "text" && !(prompt && tokenizer)) {
    throw new UsageError(
      `${name} takes ${prompt ? "prompts, but there is no tokenizer to read them" : "texts as embeddings of an encoder that it does not bring"}; give ${prompt ? "the tokenizer.json that was written with it" : "a model that reads prompts itself"}.`,
    );
  }
  const { params } = traceNetwork(network, { drop: condition.kind === "text" });
  const opened = isOpened(weights) ? weights : undefined;
  return {
    name,
    network,
    weights: opened
      ? checkedWeights(params, opened)
      : arraySource(name, params, weights as Readonly<Record<string, NdArray>>),
    process: processOf(card),
    classes: classes && new Map(classes.map((each, i) => [each, i])),
    embedder: tokenizer && prompt && ownEmbedder(name, tokenizer, prompt),
    decoder: decoderOf(card, autoencoder),
    defaults: sampling,
    close: async () => {
      await opened?.close();
      await autoencoder?.close();
    },
  };
}

/** Of a network that reads tokens with a prompt encoder of its own. */
function ownEmbedder(
  name: string,
  tokenizer: Tokenizer,
  { length }: PromptEncoderConfig,
): PromptEmbedder {
  return {
    encoders: [],
    unheard(text) {
      const { lost } = tokenizer.encode(text, length);
      return lost === "" ? [] : [{ by: name, length, words: lost.trim() }];
    },
    embed: async (texts) =>
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
      latents
        ? `${name} draws latents, but there is no autoencoder to make pictures of them; give the ${modelFiles.autoencoder} that was written with it.`
        : `${name} draws tokens, but there is no tokenizer to make pictures of them; give the ${modelFiles.vqgan} that was written with it.`,
    );
  }
  return { ...coder, weights: checkedWeights(codecParams(coder), weights) };
}

function isOpened(weights: TrainedModel["weights"]): weights is Weights {
  return weights["entries"] instanceof Map;
}

function arraySource(
  name: string,
  asked: Parameters<typeof checkKeys>[0],
  arrays: Readonly<Record<string, NdArray>>,
): WeightSource {
  checkKeys(asked, { name, entries: new Map(Object.entries(arrays)) });
  return arrayWeights(arrays);
}
