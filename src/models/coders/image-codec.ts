/** What makes latents, or tokens, of pictures and back: Stable Diffusion's autoencoder, or Paella's tokenizer. */
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { Params, ParamsRoot } from "../../nn/params.ts";
import type { OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";
import { type AutoencoderKLConfig, latentFactor } from "./autoencoder-kl-config.ts";
import {
  autoencoderKLParams,
  decodeLatents,
  encodeImages,
  scaleLatents,
  unscaleLatents,
} from "./autoencoder-kl.ts";
import type { OpenVQGAN } from "./vqgan-folder.ts";
import { decodeCodes, encodeToCodes, type VQGANConfig, vqganParams } from "./vqgan.ts";

export type ImageCodec =
  | { readonly kind: "kl"; readonly config: AutoencoderKLConfig }
  | { readonly kind: "vq"; readonly config: VQGANConfig };

/** One whose weights are at hand, under its own names and already checked. */
export type OpenCodec = OpenAutoencoder | OpenVQGAN;

export interface CodecShape {
  /** Channels of pictures that go in, and that come out. */
  readonly inputs: number;
  readonly outputs: number;
  /** Pixels along a side that one latent, or token, stands for. */
  readonly factor: number;
}

export function codecShape({ kind, config }: ImageCodec): CodecShape {
  return kind === "kl"
    ? { inputs: config.inputs, outputs: config.outputs, factor: latentFactor(config) }
    : { inputs: config.channels, outputs: config.channels, factor: 2 ** config.levels };
}

/** Every weight of it, for `checkKeys`. */
export function codecParams({ kind, config }: ImageCodec): ParamsRoot {
  return kind === "kl" ? autoencoderKLParams(config) : vqganParams(config);
}

/** Images [B, C, H, W] in [−1, 1] → what networks see of them: scaled means [B, latentChannels, h, w], or tokens [B, h, w]. */
export function encodeWithCodec(p: Params, images: Tensor, { kind, config }: ImageCodec): Tensor {
  return kind === "kl"
    ? scaleLatents(encodeImages(p, images, config).mean, config)
    : encodeToCodes(p, unitRange(images), config).indices;
}

/** And back: pixels [B, C, f·h, f·w] about in [−1, 1]. */
export function decodeWithCodec(p: Params, latents: Tensor, { kind, config }: ImageCodec): Tensor {
  return kind === "kl"
    ? decodeLatents(p, unscaleLatents(latents, config), config)
    : decodeCodes(p, latents, config).mul(2).sub(1);
}

/** From [−1, 1] to [0, 1], which Paella's tokenizer has. */
export function unitRange(images: Tensor): Tensor {
  return images.add(1).mul(0.5);
}
