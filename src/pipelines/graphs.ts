/** The programs of a model as graphs: what a pipeline runs, `export` writes and `info` counts. */
import { input } from "../engine/functional.ts";
import { type Graph, graphOf } from "../engine/graph.ts";
import { batch } from "../engine/shape.ts";
import {
  type AutoencoderKLConfig,
  decodeLatents,
  encodeImages,
  scaleLatents,
  unscaleLatents,
} from "../models/autoencoder-kl.ts";
import { type NetworkConfig, type TracedNetwork, traceNetwork } from "../models/index.ts";
import { createParams } from "../nn/params.ts";

/** A network as drawing asks it, for images of a height and width, its own unless given, with layers that rows may skip. */
export function tracedForDrawing(
  network: NetworkConfig,
  size?: readonly [height: number, width: number],
  skippable: readonly number[] = [],
): TracedNetwork {
  // A class is left out by its number, a text by saying so, and one that encoders read by being empty.
  return traceNetwork(network, {
    size,
    drop: network.prompt !== undefined,
    skippable,
  });
}

/** `x` [B, C, H, W], times `t` [B] and the condition, and where layers are skippable `skip` [B] → `output`. */
export function networkGraph(
  network: NetworkConfig,
  size?: readonly [height: number, width: number],
  skippable?: readonly number[],
): Graph {
  return graphOf({ output: tracedForDrawing(network, size, skippable).output });
}

/** `latents` [B, latentChannels, h, w], as the network makes them → `pixels` [B, C, f·h, f·w] about in [−1, 1]. */
export function decoderGraph(
  config: AutoencoderKLConfig,
  [height, width]: readonly [height: number, width: number],
): Graph {
  const latents = input("latents", [batch, config.latentChannels, height, width]);
  const pixels = decodeLatents(createParams(), unscaleLatents(latents, config), config);
  return graphOf({ pixels });
}

/** `images` [B, C, H, W] in [−1, 1] → `latents` [B, latentChannels, H/f, W/f], as the network makes them. */
export function encoderGraph(
  config: AutoencoderKLConfig,
  [height, width]: readonly [height: number, width: number],
): Graph {
  const images = input("images", [batch, config.inputs, height, width]);
  const { mean } = encodeImages(createParams(), images, config);
  return graphOf({ latents: scaleLatents(mean, config) });
}
