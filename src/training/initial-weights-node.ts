/** What a training begins with: drawn weights, words whose meaning is known, or another model's weights. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError, UsageError } from "../engine/errors.ts";
import type { NdArray } from "../engine/ndarray.ts";
import type { RandomKey } from "../engine/random.ts";
import { modelFiles } from "../models/card.ts";
import { initialize, type ParamsRoot } from "../nn/params.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { readFloat32 } from "../weights/safetensors.ts";
import { wordsKey } from "./objective.ts";

/** Words that come with Patchwise. */
const ownWords = fileURLToPath(new URL("../../models/words", import.meta.url));

export interface WordTable {
  readonly tokenizer: Tokenizer;
  /** tokenizer.json as it is, for the trained folder. */
  readonly tokenizerFile: Uint8Array;
  /** [vocabulary, width] */
  readonly vectors: NdArray<"float32">;
}

/** @throws UsageError when the folder does not hold a tokenizer and its words */
export async function openWords(folder: string = ownWords): Promise<WordTable> {
  const path = join(folder, modelFiles.tokenizer);
  const tokenizerFile = await readFile(path).catch((error: unknown) => {
    throw new UsageError(
      `There is no ${path}; model.prompt.words must be a folder with tokenizer.json and words.safetensors.`,
      { cause: error },
    );
  });
  const tokenizer = loadTokenizer(JSON.parse(tokenizerFile.toString("utf8")));
  const weights = await openSafetensorsFile(join(folder, "words.safetensors"));
  try {
    const entry = weights.entries.get("words");
    if (entry?.shape.length !== 2 || entry.shape[0] !== tokenizer.size) {
      throw new FormatError(
        `${weights.name} must hold "words" of shape [${tokenizer.size}, width], one row for each piece of ${path}.`,
      );
    }
    return { tokenizer, tokenizerFile, vectors: await readFloat32(entry) };
  } finally {
    await weights.close?.();
  }
}

/**
 * First values of all weights.
 *
 * @param from a trained folder or a weights file; what it holds under the same name and shape is taken, and it must hold all
 * @throws FormatError when `from` is of another model
 */
export async function initialWeights(
  params: ParamsRoot,
  key: RandomKey,
  words: WordTable | undefined,
  from: string | undefined,
): Promise<Record<string, NdArray>> {
  const drawn: Record<string, NdArray> = initialize(params, key);
  if (words) drawn[wordsKey] = words.vectors;
  if (from === undefined) return drawn;
  const isFolder = (await stat(from).catch(() => undefined))?.isDirectory();
  const weights = await openSafetensorsFile(isFolder ? join(from, modelFiles.weights) : from);
  try {
    for (const [name, { shape }] of Object.entries(drawn)) {
      const entry = weights.entries.get(name);
      if (entry?.shape.join() !== shape.join()) {
        throw new FormatError(
          `${weights.name} is of another model than the config: ${name} is ${entry ? `[${entry.shape.join(", ")}]` : "missing"} there, but [${shape.join(", ")}] here; set model as it was trained.`,
        );
      }
      drawn[name] = await readFloat32(entry);
    }
    return drawn;
  } finally {
    await weights.close?.();
  }
}
