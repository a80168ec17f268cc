/** What drawing needs of a model, wherever it comes from: a trained folder, diffusers' folder, or a single file. */
import type { Parameterization } from "../diffusion/parameterization.ts";
import type { NoiseLevel } from "../diffusion/levels.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import type { Threshold } from "../diffusion/thresholding.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import type { AutoencoderKLConfig } from "../models/autoencoder-kl.ts";
import type { NetworkConfig } from "../models/index.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

export interface ImageModel {
  /** What a person calls it. */
  readonly name: string;
  readonly network: NetworkConfig;
  /** Of the network, by its own names; already checked. */
  readonly weights: WeightSource;
  readonly process: SamplingProcess;
  /** Every name of each class; models with classes know them by number too. */
  readonly classes?: ReadonlyMap<string, number> | undefined;
  /** Of models that take prompts. */
  readonly tokenizer?: Tokenizer | undefined;
  /** Makes pixels of latents; without it the network sees pixels itself. */
  readonly decoder?: LatentDecoder | undefined;
  readonly defaults: {
    readonly steps: number;
    readonly guidance: number;
    readonly guidedChannels?: number | undefined;
  };
  /** Gives files back. */
  close(): Promise<void>;
}

export interface LatentDecoder {
  readonly config: AutoencoderKLConfig;
  readonly weights: WeightSource;
}

/** By which levels a model is sampled, and how its answers are read. */
export interface SamplingProcess {
  /** What the network predicts. */
  readonly parameterization: Parameterization;
  /** How estimates of x0 are kept in range. */
  readonly threshold?: Threshold | undefined;
  /** Name of the model's own sampler. */
  readonly sampler: string;
  /** @throws UsageError when there is no sampler of that name */
  samplerNamed(name: string): Sampler;
  /** Noisiest first. @throws UsageError when there cannot be so many steps */
  levels(steps: number): readonly NoiseLevel[];
  /** Standard deviation of what sampling begins with. */
  start(first: NoiseLevel): number;
}
