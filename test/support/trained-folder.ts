/** Folders as `patchwise train` leaves them, with random weights. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Card } from "../../src/models/card.ts";
import type { NetworkConfig } from "../../src/models/index.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";
import { randomWeights, tinyCard, tinyNetwork, tinyTokenizerJson } from "./tiny-model.ts";

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
