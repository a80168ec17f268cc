/** What a training changes: all weights of a network, a LoRA beside weights that stay as they are, or an autoencoder. */
import type { LatentDraw } from "../../data/latents/latents.ts";
import type { Loader } from "../../data/loading/loader-node.ts";
import type { Picture } from "../../pictures/picture.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { RandomKey } from "../../engine/random/random.ts";
import type { Backend, WeightSource } from "../../engine/runtime/backend.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { Card } from "../../models/card.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { RunConfig } from "../config/config.ts";
import type { LabelledPictures } from "./examples.ts";
import type { Feed } from "../feeds/feed-node.ts";
import type { Tree } from "../optimizers.ts";

/** Draws with a model in training: one picture a row, several a prompt or class. */
export type DrawSamples = (
  model: {
    readonly card: Card;
    readonly weights: Readonly<Record<string, NdArray>>;
    readonly tokenizer: Tokenizer | undefined;
    /** Open, and for the drawer to close; of models of latents or tokens. */
    readonly autoencoder: Weights | undefined;
  },
  samples: {
    readonly of: readonly string[] | undefined;
    readonly each: number;
    readonly seed: number;
  },
) => Promise<Picture>;

/** What runs a training, beside its config. */
export interface Surroundings {
  readonly backend: Backend;
  /** Folder of the training, and of the model that comes out. */
  readonly out: string;
  /** Where sample grids are asked for. */
  readonly draw: DrawSamples;
}

/** A training before its data is open. */
export interface Plan {
  readonly config: RunConfig;
  /** What must be the same when it goes on. */
  readonly recorded: object;
  /** @throws UsageError when the data does not fit */
  subject(feed: Feed): Promise<Subject>;
  /** Gives files back. */
  close(): Promise<void>;
}

export type Arrays = Readonly<Record<string, NdArray>>;

/** How long a training went so far. */
export interface Trained {
  readonly steps: number;
  readonly images: number;
}

/** What is measured on pictures that were not trained on. */
export type Measures = { readonly loss: number } & Readonly<Record<string, number>>;

export interface Subject {
  readonly kind: "model" | "LoRA" | "autoencoder";
  /** A float scalar, of the inputs that `inputs` gives. */
  readonly loss: Tensor;
  /** Parameters to train, by name. */
  readonly trained: Tree;
  /** Draws or reads their first values, which are large: nothing here keeps them. */
  initial(): Promise<Arrays>;
  /** Those that stay as they are. */
  readonly fixed: WeightSource;
  /** Numbers that a person counts as the parameters of what is trained. */
  readonly parameters: number;
  /** Of one image's forward pass. */
  multiplyAdds(): number;
  /** Writes what does not change, into the training's folder. */
  begin(): Promise<void>;
  /** What the loss takes for a batch; random choices depend on the key alone. */
  inputs(batch: LabelledPictures, key: RandomKey, latents: LatentDraw | undefined): Arrays;
  /** Reads pictures now, and closes their loader; what it returns measures averages on them, always in the same way. */
  validator(
    loader: Loader,
    latents: LatentDraw | undefined,
  ): Promise<(averages: Arrays) => Promise<Measures>>;
  /** Shows what the averages can do. */
  sample(trained: Trained, averages: Arrays): Promise<Picture>;
  /** Writes what came out. */
  write(trained: Trained, averages: Arrays): Promise<void>;
}
