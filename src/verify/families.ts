/**
 * Every family whose recordings can be verified, by the name that config.json calls it.
 */
import { autoencoderKL, sd3VAE } from "./autoencoder-kl.ts";
import { ddpmUNet } from "./ddpm-unet.ts";
import { ditDiffusion } from "./dit-diffusion.ts";
import { ditFamily } from "./dit.ts";
import type { Family } from "./family.ts";
import { paella, paellaV1 } from "./paella.ts";
import { paellaVQGAN } from "./paella-vqgan.ts";
import { pixArt } from "./pixart.ts";
import { samplersFamily } from "./samplers.ts";
import { clipTextFamily, t5EncoderFamily } from "./text-encoders.ts";
import { sd3MMDiT } from "./sd3-mmdit.ts";
import { sd3Sampling } from "./sd3-sampling.ts";
import { torchRng } from "./torch-rng.ts";
import { uViT } from "./u-vit.ts";

export const families: ReadonlyMap<string, Family> = new Map([
  ["torch_rng", torchRng],
  ["autoencoder_kl", autoencoderKL],
  ["sd3_vae", sd3VAE],
  ["dit", ditFamily],
  ["dit_diffusion", ditDiffusion],
  ["samplers", samplersFamily],
  ["pixart", pixArt],
  ["sd3_mmdit", sd3MMDiT],
  ["sd3_sampling", sd3Sampling],
  ["clip_text", clipTextFamily],
  ["t5_encoder", t5EncoderFamily],
  ["paella", paella],
  ["paella_v1", paellaV1],
  ["paella_vqgan", paellaVQGAN],
  ["u_vit", uViT],
  ["ddpm_unet", ddpmUNet],
]);
