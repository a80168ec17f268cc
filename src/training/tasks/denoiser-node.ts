/** What trainings of networks that denoise have in common, whether all of their weights are trained or a LoRA. */
import { basename, join, resolve } from "node:path";
import { countMultiplyAdds } from "../../engine/passes/cost.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { type Card, modelFiles, wholeSampling } from "../../models/card.ts";
import { type NetworkConfig, traceNetwork } from "../../models/network.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { type DenoiserConfig, pictureShape } from "../config/config.ts";
import { examplesOf } from "./examples.ts";
import type { Feed } from "../feeds/feed-node.ts";
import type { Arrays, Subject, Surroundings, Trained } from "./plan-node.ts";
import { requireKnownSamples } from "./samples.ts";
import { validator } from "./validation-node.ts";

export interface Denoiser {
  readonly config: DenoiserConfig;
  readonly network: NetworkConfig;
  readonly tokenizer: Tokenizer | undefined;
  /** Of a network that is told classes. */
  readonly classNames: readonly string[] | undefined;
  /** The network's class of each class of the data, where they are not the same. */
  readonly classes?: readonly number[] | undefined;
  /** All weights of the network, from the averages of what is trained. */
  drawing(averages: Arrays): Promise<Arrays>;
}

/** @throws UsageError when samples are to be of what the network is not told */
export function denoising(
  denoiser: Denoiser,
  feed: Feed,
  { backend, out, draw }: Surroundings,
): Pick<Subject, "inputs" | "validator" | "sample" | "multiplyAdds"> & {
  readonly cardAt: (trained: Trained) => Card;
} {
  const { config, network, tokenizer, classNames, classes } = denoiser;
  const { diffusion: recipe, samples, training } = config;
  requireKnownSamples(samples.of, { network, classNames });
  const cardAt = (trained: Trained) => cardOf(denoiser, feed, out, trained);
  const examples = { network, recipe, tokenizer, classes, dropCondition: training.dropCondition };
  return {
    cardAt,
    multiplyAdds: () => countMultiplyAdds(graphOf({ output: traceNetwork(network).output }), 1),
    inputs: (batch, key, latents) => examplesOf(batch, key, { ...examples, latents }),
    async validator(loader, latents) {
      const measure = await validator(loader, config, {
        examples: { ...examples, latents },
        backend,
      });
      return async (averages) => ({ loss: await measure(await denoiser.drawing(averages)) });
    },
    async sample(trained, averages) {
      const model = {
        card: cardAt(trained),
        weights: await denoiser.drawing(averages),
        tokenizer,
        autoencoder:
          feed.coder && (await openSafetensorsFile(join(out, codecFiles[feed.coder.kind]))),
      };
      return draw(model, { ...samples, of: samples.of });
    },
  };
}

/** Copies of what makes pictures of what the network draws. */
export const codecFiles = { kl: modelFiles.autoencoder, vq: modelFiles.vqgan } as const;

function cardOf(
  { config, network, classNames }: Denoiser,
  { coder }: Feed,
  out: string,
  trained: Trained,
): Card {
  return {
    format: "patchwise",
    version: 1,
    name: config.name ?? basename(resolve(out)),
    network,
    diffusion: config.diffusion,
    picture: pictureShape(config),
    ...(coder?.kind === "kl" && { latents: { autoencoder: coder.config } }),
    ...(coder?.kind === "vq" && { tokens: { tokenizer: coder.config } }),
    ...(network.condition.kind === "class" && { classes: [...classNames!] }),
    sampling: wholeSampling(config.sampling, config.diffusion),
    trained: { steps: trained.steps, images: trained.images },
  };
}
