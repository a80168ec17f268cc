/** Small networks with random weights, for whoever draws with them. */
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { type Card, cardSchema } from "../../src/models/card.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { initialize } from "../../src/nn/params.ts";
import { loadTokenizer, type Tokenizer } from "../../src/text/tokenizer.ts";
import { randomArray } from "./arrays.ts";

export const tinyNetwork = {
  ...ditPresets["DiT-S/8"],
  kind: "dit",
  size: [8, 8],
  channels: 3,
  patch: 4,
  hidden: 32,
  depth: 2,
  heads: 2,
  learnedVariance: false,
  condition: { kind: "class", classes: 3, nullClass: true },
} as const satisfies NetworkConfig;

const words = ["a", "red", "blue", "cat", "dog", "on", "the", "moon"];

/** Takes prompts of up to 4 of the tokenizer's words. */
export const tinyTextNetwork: NetworkConfig = {
  ...tinyNetwork,
  condition: { kind: "text", width: 16, length: 4 },
  block: { kind: "adaLN-zero", text: "in-context" },
  prompt: { vocabulary: words.length + 2, wordWidth: 8, width: 16, depth: 1, heads: 2, length: 4 },
};

const prior = { code: 5, subjects: 3, styles: 1, colours: 2, hidden: 4, companions: false };

/** Draws clips of two frames that move, of the same prompts. */
export const tinyMovingNetwork: NetworkConfig = {
  kind: "video-dit",
  size: [8, 8],
  frames: 2,
  channels: 3,
  patch: 4,
  framePatch: 1,
  hidden: 24,
  depth: 1,
  heads: 2,
  mlpRatio: 2,
  learnedVariance: false,
  condition: { kind: "text", width: 7, length: 1 },
  canvas: { width: 12, motions: 2, period: 3 },
  patches: { kind: "linear" },
  positions: { kind: "none" },
  rotary: { theta: 100 },
  norm: { kind: "rms", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "swiglu" },
  qkNorm: null,
  prompt: { ...tinyTextNetwork.prompt!, prior: { ...prior, motions: 2 } },
};

/** A card that draws in few steps. */
export function tinyCard(network: NetworkConfig = tinyNetwork, more: Partial<Card> = {}): Card {
  const [height, width] = network.size;
  return cardSchema().parse({
    format: "patchwise",
    version: 1,
    name: "tiny",
    network,
    diffusion: { process: "flow" },
    picture: { height, width, channels: 3 },
    ...(network.condition.kind === "class" && { classes: ["cat", "dog", "bird"] }),
    sampling: { sampler: "euler", steps: 4, guidance: 2 },
    trained: { steps: 0, images: 0 },
    ...more,
  });
}

/** Weights of which none is zero, so that everything counts. */
export function randomWeights(network: NetworkConfig, seed = 1): Record<string, NdArray> {
  const { params } = traceNetwork(network, { drop: network.condition.kind === "text" });
  const first = initialize(params, randomKey(seed));
  return Object.fromEntries(
    Object.entries(first).map(([name, { shape }], i) => [
      name,
      randomArray(seed + i, "float32", shape, -0.3, 0.3),
    ]),
  );
}

/** A tokenizer.json that knows these words, split at spaces. */
export const tinyTokenizerJson = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [
    { id: 0, content: "[PAD]", special: true },
    { id: 1, content: "[UNK]", special: true },
  ].map((token) => ({
    ...token,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })),
  normalizer: { type: "Lowercase" },
  pre_tokenizer: { type: "Whitespace" },
  post_processor: null,
  decoder: null,
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(["[PAD]", "[UNK]", ...words].map((word, id) => [word, id])),
  },
};

export const tinyTokenizer: Tokenizer = loadTokenizer(tinyTokenizerJson);
