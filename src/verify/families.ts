/** Every family whose recordings can be verified, by its name in config.json. */
import { autoencoderKL, flux2VAE, sd3VAE } from "./autoencoder-kl.ts";
import { familiesOfCases } from "./cases.ts";
import { ditDiffusion } from "./dit-diffusion.ts";
import type { Family } from "./family.ts";
import { gguf } from "./gguf.ts";
import { fluxSampling } from "./flux-sampling.ts";
import { forwardOf, recordedFamilies } from "./forward.ts";
import { miniT2IMeanFlow } from "./minit2i-mf.ts";
import { miniT2ISampling } from "./minit2i-sampling.ts";
import { paella, paellaV1 } from "./paella.ts";
import { paellaVQGAN } from "./paella-vqgan.ts";
import { pixArt } from "./pixart.ts";
import { samplersFamily } from "./samplers.ts";
import { clipTextFamily, qwen3Family, t5EncoderFamily } from "./text-encoders.ts";
import { sd3Sampling } from "./sd3-sampling.ts";
import { torchRng } from "./torch-rng.ts";
import { wan22VAE, wanVAE } from "./wan-vae.ts";
import { wan21, wan22 } from "./wan.ts";

/** The families of recordings: what follows from the model families, and what needs more than a forward pass. */
export function recordingFamilies(): ReadonlyMap<string, Family> {
  const forward = recordedFamilies().map((family) => [family.recorded.name, forwardOf(family)]);
  return new Map([...others, ...familiesOfCases(), ...(forward as [string, Family][])]);
}

const others: readonly (readonly [name: string, family: Family])[] = [
  ["torch_rng", torchRng],
  ["autoencoder_kl", autoencoderKL],
  ["sd3_vae", sd3VAE],
  ["flux2_vae", flux2VAE],
  ["gguf", gguf],
  ["flux_sampling", fluxSampling],
  ["dit_diffusion", ditDiffusion],
  ["samplers", samplersFamily],
  ["pixart", pixArt],
  ["sd3_sampling", sd3Sampling],
  ["minit2i_sampling", miniT2ISampling],
  ["minit2i_mf", miniT2IMeanFlow],
  ["clip_text", clipTextFamily],
  ["t5_encoder", t5EncoderFamily],
  ["qwen3", qwen3Family],
  ["paella", paella],
  ["paella_v1", paellaV1],
  ["paella_vqgan", paellaVQGAN],
  ["wan", wan21],
  ["wan22", wan22],
  ["wan_vae", wanVAE],
  ["wan22_vae", wan22VAE],
];
