/** The word table of a prompt encoder: a tokenizer, and a vector of known meaning for each of its pieces. */
import { FormatError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { modelFiles } from "../../models/card.ts";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer.ts";
import { readFloat32 } from "../../weights/safetensors/safetensors.ts";
import { closing } from "../../weights/sources/closing.ts";
import { type ModelFolder, parsedJson } from "../../weights/sources/folder.ts";

export interface WordTable {
  readonly tokenizer: Tokenizer;
  /** The content of tokenizer.json, which a trained model is saved with. */
  readonly tokenizerFile: Uint8Array;
  /** [vocabulary, width] */
  readonly vectors: NdArray<"float32">;
}

/**
 * Reads `tokenizer.json` and `words.safetensors` from a folder.
 *
 * @throws FormatError when the files are missing or do not fit each other
 */
export async function readWords(folder: ModelFolder): Promise<WordTable> {
  const path = folder.pathOf(modelFiles.tokenizer);
  const tokenizerFile = await folder.read(modelFiles.tokenizer);
  const tokenizer = loadTokenizer(parsedJson(new TextDecoder().decode(tokenizerFile), path));
  return closing(await folder.weights("words.safetensors"), async ({ entries, name }) => {
    const entry = entries.get("words");
    if (entry?.shape.length !== 2 || entry.shape[0] !== tokenizer.size) {
      throw new FormatError(
        `${name} must hold "words" of shape [${tokenizer.size}, width], one row for each piece of ${path}.`,
      );
    }
    return { tokenizer, tokenizerFile, vectors: await readFloat32(entry) };
  });
}
