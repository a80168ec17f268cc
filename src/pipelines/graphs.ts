/** The programs of a model as graphs: what a pipeline runs, `export` writes and `info` counts. */
import { input } from "../engine/functional.ts";
import { type Graph, graphOf } from "../engine/graph.ts";
import { batch } from "../engine/shape.ts";
import {
  type AutoencoderKLConfig,
  decodeLatents,
  unscaleLatents,
} from "../models/autoencoder-kl.ts";
import { canDrop, type NetworkConfig, type TracedNetwork, traceNetwork } from "../models/index.ts";
import { createParams } from "../nn/params.ts";

/** A network as drawing asks it, for images of a height and width, its own unless given. */
export function tracedForDrawing(
  network: NetworkConfig,
  size?: readonly [height: number, width: number],
): TracedNetwork {
  // A class is left out by its number, a text by saying so.
  return traceNetwork(network, {
    size,
    drop: network.condition.kind === "text" && canDrop(network),
  });
}

/** `x` [B, C, H, W], times `t` [B] and the condition → `output`. */
export function networkGraph(
  network: NetworkConfig,
  size?: readonly [height: number, width: number],
): Graph {
  return graphOf({ output: tracedForDrawing(network, size).output });
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
