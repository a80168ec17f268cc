/** The programs of a model as graphs: what a pipeline runs, `export` writes and `info` counts. */
import { input } from "../engine/graph/functional.ts";
import { type Graph, graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { type NetworkConfig, type TracedNetwork, traceNetwork } from "../models/network.ts";
import {
  codecShape,
  decodeWithCodec,
  encodeWithCodec,
  type ImageCodec,
} from "../models/coders/image-codec.ts";
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

/** `x` [B, C, H, W] or tokens [B, H, W], times `t` [B] and the condition, and where layers are skippable `skip` [B] → `output`. */
export function networkGraph(
  network: NetworkConfig,
  size?: readonly [height: number, width: number],
  skippable?: readonly number[],
): Graph {
  return graphOf({ output: tracedForDrawing(network, size, skippable).output });
}

/** `latents` [B, latentChannels, h, w] or tokens [B, h, w], as the network makes them → `pixels` [B, C, f·h, f·w] about in [−1, 1]. */
export function decoderGraph(
  coder: ImageCodec,
  size: readonly [height: number, width: number],
): Graph {
  const latents =
    coder.kind === "kl"
      ? input("latents", [batch, coder.config.latentChannels, ...size])
      : input("latents", [batch, ...size], "int64");
  return graphOf({ pixels: decodeWithCodec(createParams(), latents, coder) });
}

/** `images` [B, C, H, W] in [−1, 1] → `latents` [B, latentChannels, H/f, W/f] or tokens [B, H/f, W/f], as the network makes them. */
export function encoderGraph(
  coder: ImageCodec,
  size: readonly [height: number, width: number],
): Graph {
  const images = input("images", [batch, codecShape(coder).inputs, ...size]);
  return graphOf({ latents: encodeWithCodec(createParams(), images, coder) });
}
