/** What drawing needs of a model, wherever it comes from: a trained folder, diffusers' folder, or a single file. */
import type { Conditions } from "../diffusion/denoiser.ts";
import type { Parameterization } from "../diffusion/parameterization.ts";
import type { NoiseLevel } from "../diffusion/levels.ts";
import type { LevelOptions } from "../diffusion/recipe.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import type { sampleTokens } from "../diffusion/discrete/token-sampling.ts";
import type { Threshold } from "../diffusion/thresholding.ts";
import type { Graph } from "../engine/graph/graph.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { RunOptions, WeightSource } from "../engine/runtime/backend.ts";
import type { ImageCodec } from "../models/coders/image-codec.ts";
import type { tokenSampler } from "../models/card.ts";
import type { NetworkConfig } from "../models/network.ts";

export interface ImageModel {
  /** What a person calls it. */
  readonly name: string;
  readonly network: NetworkConfig;
  /** Of the network, by its own names; already checked. */
  readonly weights: WeightSource;
  readonly process: SamplingProcess | TokenProcess;
  /** Every name of each class; models with classes know them by number too. */
  readonly classes?: ReadonlyMap<string, number> | undefined;
  /** Of models that take prompts; else `lacks` says why there is none. */
  readonly embedder?: PromptEmbedder | undefined;
  /** Makes pixels of latents or tokens; without it the network sees pixels itself. */
  readonly decoder?: LatentDecoder | undefined;
  readonly defaults: {
    readonly steps: number;
    readonly guidance: number;
    readonly guidedChannels?: number | undefined;
    /** Of tokens, in the first and in the last step. */
    readonly temperature?: readonly [first: number, last: number] | undefined;
  };
  /** What was mixed into the weights. */
  readonly loras?: readonly MixedLora[] | undefined;
  /** Sentences on what of its files does not count. */
  readonly warnings?: readonly string[] | undefined;
  /** What cannot be drawn without, and how to give it, where a part is not there. */
  readonly lacks?: string | undefined;
  /** Gives files back. */
  close(): Promise<void>;
}

/** A LoRA, by its file or folder, and how much of it. */
export interface MixedLora {
  readonly file: string;
  readonly weight: number;
}

/** A program of a model. */
export interface Stage {
  /** What it is to a person. */
  readonly name: string;
  readonly kind: "text encoder" | "image encoder" | "network" | "decoder";
  /** Traces it. */
  readonly graph: () => Graph;
  readonly weights: WeightSource;
  /** What a person can do where memory does not suffice for it, beside drawing less. */
  readonly remedy?: string;
}

/** Runs a stage, whose program is made if there is none. */
export type RunStage = (
  stage: Stage,
  inputs: Readonly<Record<string, NdArray>>,
  options?: RunOptions,
) => Promise<Readonly<Record<string, NdArray>>>;

/** How a text becomes what the network is told. */
export interface PromptEmbedder {
  /** Programs that read the text before the network runs; none where the network has a prompt encoder of its own. */
  readonly encoders: readonly Stage[];
  /** Words of a text that are not heard, because it is too long; empty where all are. */
  unheard(text: string): readonly Unheard[];
  /** The conditions of each text, arrays of one row; the empty text stands for none. */
  embed(texts: readonly string[], run: RunStage): Promise<readonly Conditions[]>;
}

export interface Unheard {
  /** Who does not hear them. */
  readonly by: string;
  /** Tokens that they hear. */
  readonly length: number;
  readonly words: string;
}

export type LatentDecoder = ImageCodec & { readonly weights: WeightSource };

/** By which levels a model of tokens is sampled. */
export interface TokenProcess {
  readonly kind: "tokens";
  readonly codebook: number;
  /** The only one there is. */
  readonly sampler: typeof tokenSampler;
  /** @throws UsageError when there is no sampler of that name */
  samplerNamed(name: string): typeof sampleTokens;
  /** Their sigma is the share of noise. @throws UsageError when there cannot be so many steps, or they are to be shifted */
  levels(steps: number, options: LevelOptions): readonly NoiseLevel[];
}

/** By which levels a model of continuous numbers is sampled, and how its answers are read. */
export interface SamplingProcess {
  readonly kind: "continuous";
  /** What the network predicts. */
  readonly parameterization: Parameterization;
  /** How estimates of x0 are kept in range. */
  readonly threshold?: Threshold | undefined;
  /** Name of the model's own sampler. */
  readonly sampler: string;
  /**
   * @param steps of the whole schedule, through whose last levels it may be asked to go
   * @throws UsageError when there is no sampler of that name
   */
  samplerNamed(name: string, steps: number): Sampler;
  /** Noisiest first. @throws UsageError when there cannot be so many steps, or no such shift */
  levels(steps: number, options: LevelOptions): readonly NoiseLevel[];
  /** Standard deviation of what sampling begins with. */
  start(first: NoiseLevel): number;
}
