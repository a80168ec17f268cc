/** The word table of a training on disk. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { packageFile } from "../../engine/package-node.ts";
import { modelFiles } from "../../models/card.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import type { TrainingConfig } from "../config/config.ts";
import type { DataSource } from "../loop.ts";
import { completeWords, wordsWith } from "../tasks/vocabulary.ts";
import { readWords, type WordTable } from "../tasks/words.ts";
import type { TrainOptions } from "./train-node.ts";

/**
 * The words that a training reads its captions with: those of the model that it continues or starts from; else those of the
 * config, with further pieces for what they lack.
 *
 * @throws UsageError as `openWords` does
 */
export async function wordsOf(
  { model, training: { from } }: TrainingConfig,
  { survey }: DataSource,
  { out, resume = false }: Pick<TrainOptions, "out" | "resume">,
): Promise<WordTable> {
  const words = await openWords(model.prompt.words);
  const continued = resume ? await tokenizerIn(out) : undefined;
  const known =
    continued ?? (from === undefined ? undefined : await tokenizerIn(await folderOf(from)));
  return known ? wordsWith(words, known) : completeWords(words, survey?.characters ?? "");
}

/** The tokenizer.json in a folder; undefined if there is none. */
async function tokenizerIn(path: string): Promise<Uint8Array | undefined> {
  const folder = diskFolder(path);
  return (await folder.has(modelFiles.tokenizer)) ? folder.read(modelFiles.tokenizer) : undefined;
}

/** The folder of a model, which is given as a folder or as the file of its weights. */
async function folderOf(path: string): Promise<string> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory();
  return isFolder ? path : dirname(path);
}

/** The word table that comes with Patchwise. */
const bundledWords = packageFile("models/words");

/**
 * Opens a word table on disk, the bundled one by default.
 *
 * @throws UsageError when the folder does not hold a tokenizer and its words
 */
export async function openWords(path: string = bundledWords): Promise<WordTable> {
  const folder = diskFolder(path);
  if (await folder.has(modelFiles.tokenizer)) return readWords(folder);
  throw new UsageError(
    `There is no ${folder.pathOf(modelFiles.tokenizer)}; model.prompt.words must be a folder with tokenizer.json and words.safetensors.`,
  );
}
