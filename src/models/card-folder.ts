/** Reads card and tokenizer of a trained model's folder. */
import { requirePlausible } from "../weights/plausible.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import { requireFewPatches } from "./network.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { jsonIn, type ModelFolder } from "../weights/sources/folder.ts";
import { type Card, modelFiles, readCard } from "./card.ts";

/**
 * Holds a card against the weights beside it before a network of its size is traced: what a card asks for may be anything.
 *
 * @throws FormatError if the weights cannot be those of such a network
 */
export function requirePlausibleCard({ name, network }: Card, weights: Weights): void {
  const owner = `The card of ${name}`;
  requireFewPatches(owner, network);
  requirePlausible(owner, network, weights);
}

/** @throws FormatError when a file is missing or unsound */
export async function readTrainedFolder(
  folder: ModelFolder,
): Promise<{ readonly card: Card; readonly tokenizer: Tokenizer | undefined }> {
  const card = readCard(folder.pathOf(modelFiles.card), await jsonIn(folder, modelFiles.card));
  const tokenizer = card.network.prompt
    ? loadTokenizer(await jsonIn(folder, modelFiles.tokenizer))
    : undefined;
  return { card, tokenizer };
}
