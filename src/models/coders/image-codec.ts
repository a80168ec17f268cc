/**
 * Image codecs convert pictures to the latents or codes that networks work on, and back: Stable Diffusion's
 * autoencoder, or Paella's VQGAN.
 */
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { Params, ParamsRoot } from "../../nn/params.ts";
import type { OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";
import { type AutoencoderKLConfig, latentFactor, latentWidth } from "./autoencoder-kl-config.ts";
import {
  autoencoderKLParams,
  decodeLatents,
  encodeImages,
  scaleLatents,
  unscaleLatents,
} from "./autoencoder-kl.ts";
import {
  decodeCodes,
  encodeToCodes,
  type OpenVQGAN,
  type VQGANConfig,
  vqganParams,
} from "./vqgan.ts";

export type ImageCodec =
  | { readonly kind: "kl"; readonly config: AutoencoderKLConfig }
  | { readonly kind: "vq"; readonly config: VQGANConfig };

/** A codec with checked weights under its own names. */
export type OpenCodec = OpenAutoencoder | OpenVQGAN;

export interface CodecShape {
  /** Channels of the encoded and of the decoded pictures. */
  readonly inputs: number;
  readonly outputs: number;
  /** Channels of the latents as networks see them; 1 for codes. */
  readonly latents: number;
  /** Pixels along a side of one latent or code. */
  readonly factor: number;
}

export function codecShape({ kind, config }: ImageCodec): CodecShape {
  return kind === "kl"
    ? {
        inputs: config.inputs,
        outputs: config.outputs,
        latents: latentWidth(config),
        factor: latentFactor(config),
      }
    : {
        inputs: config.channels,
        outputs: config.channels,
        latents: 1,
        factor: 2 ** config.levels,
      };
}

/** Declares every weight, for `checkKeys`. */
export function codecParams({ kind, config }: ImageCodec): ParamsRoot {
  return kind === "kl" ? autoencoderKLParams(config) : vqganParams(config);
}

/** Encodes images [B, C, H, W] in [−1, 1] to scaled means [B, latents, h, w], or to codes [B, h, w]. */
export function encodeWithCodec(p: Params, images: Tensor, { kind, config }: ImageCodec): Tensor {
  return kind === "kl"
    ? scaleLatents(p, encodeImages(p, images, config).mean, config)
    : encodeToCodes(p, unitRange(images), config).indices;
}

/** Decodes to pixels [B, C, f·h, f·w], approximately in [−1, 1]. */
export function decodeWithCodec(p: Params, latents: Tensor, { kind, config }: ImageCodec): Tensor {
  return kind === "kl"
    ? decodeLatents(p, unscaleLatents(p, latents, config), config)
    : decodeCodes(p, latents, config).mul(2).sub(1);
}

/** Maps [−1, 1] to [0, 1], the range of Paella's VQGAN. */
export function unitRange(images: Tensor): Tensor {
  return images.add(1).mul(0.5);
}
