/** What a training changes: all weights of a network, or a LoRA beside weights that stay as they are. */
import type { NdArray } from "../engine/ndarray.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { Card } from "../models/card.ts";
import type { NetworkConfig } from "../models/index.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { RunConfig } from "./config.ts";
import type { Feed } from "./feed-node.ts";
import type { Tree } from "./optimizer.ts";

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

export interface Subject {
  readonly kind: "model" | "LoRA";
  readonly network: NetworkConfig;
  readonly tokenizer: Tokenizer | undefined;
  /** Of a network that is told classes. */
  readonly classNames: readonly string[] | undefined;
  /** The network's class of each class of the data, where they are not the same. */
  readonly classes?: readonly number[] | undefined;
  /** A float scalar, of the inputs of `objective`. */
  readonly loss: Tensor;
  /** Parameters to train, by name. */
  readonly trained: Tree;
  /** Draws or reads their first values, which are large: nothing here keeps them. */
  initial(): Promise<Arrays>;
  /** Those that stay as they are. */
  readonly fixed: WeightSource;
  /** Numbers that a person counts as the parameters of what is trained. */
  readonly parameters: number;
  /** Writes what does not change, into the training's folder. */
  begin(folder: string): Promise<void>;
  /** All weights of the network that draws, from the averages of what is trained. */
  drawing(averages: Arrays): Promise<Record<string, NdArray>>;
  /** Writes what came out. */
  write(folder: string, card: Card, averages: Arrays): Promise<void>;
}
