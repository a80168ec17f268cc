/** Reads card and tokenizer of a trained model's folder. */
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { jsonIn, type ModelFolder } from "../weights/sources/folder.ts";
import { type Card, modelFiles, readCard } from "./card.ts";

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
