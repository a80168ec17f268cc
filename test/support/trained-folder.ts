/** Folders as `patchwise train` leaves them, with random weights. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Card } from "../../src/models/card.ts";
import type { NetworkConfig } from "../../src/models/network.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";
import { type VQGANConfig, vqganParams } from "../../src/models/coders/vqgan.ts";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { resolve } from "../../src/engine/graph/shape.ts";
import { randomArray } from "./arrays.ts";
import { randomWeights, tinyCard, tinyNetwork, tinyTokenizerJson } from "./tiny-model.ts";

const tinyTokenizer: VQGANConfig = {
  channels: 3,
  levels: 2,
  bottleneckBlocks: 1,
  hidden: 16,
  latentChannels: 4,
  codebook: 24,
  scale: 1,
};

/** Writes a trained folder of a network that draws 8×8 tokens, each of 4×4 pixels. */
export async function writeTrainedOnTokens(folder: string): Promise<void> {
  const { codebook } = tinyTokenizer;
  const network: NetworkConfig = { ...tinyNetwork, patch: 1, channels: 16, tokens: { codebook } };
  await writeTrained(folder, network, {
    diffusion: { process: "tokens", smoothing: 0, keptWeight: 0.3, levels: "even" },
    picture: { height: 32, width: 32, channels: 3 },
    tokens: { tokenizer: tinyTokenizer },
    sampling: { sampler: "renoise", steps: 4, guidance: 2, temperature: [1, 0.5] },
  });
  const { declared } = vqganParams(tinyTokenizer);
  const arrays = [...declared].map(([name, { tensor }], i): [string, NdArray] => [
    name,
    // Variances are positive.
    randomArray(i, "float32", resolve(tensor.shape, undefined), 0.05, 0.6),
  ]);
  await writeSafetensors(path.join(folder, "vqgan.safetensors"), arrays);
}

/** Writes a trained folder, which is called as the model in it. */
export async function writeTrained(
  folder: string,
  network: NetworkConfig = tinyNetwork,
  card: Partial<Card> = {},
): Promise<void> {
  mkdirSync(folder);
  const json = (file: string, content: object) =>
    writeFileSync(path.join(folder, file), JSON.stringify(content));
  json("model.json", tinyCard(network, { name: path.basename(folder), ...card }));
  if (network.prompt) json("tokenizer.json", tinyTokenizerJson);
  const weights = Object.entries(randomWeights(network));
  await writeSafetensors(path.join(folder, "model.safetensors"), weights);
}
