/** What a training begins with: drawn weights, words whose meaning is known, or another model's weights. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError, UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { RandomKey } from "../../engine/random/random.ts";
import { resolve } from "../../engine/graph/shape.ts";
import { modelFiles } from "../../models/card.ts";
import { initialize, type ParamsRoot } from "../../nn/params.ts";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer.ts";
import { readJson } from "../../weights/sources/folder-node.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { readFloat32, type Weights } from "../../weights/safetensors/safetensors.ts";
import { wordsKey } from "./objective.ts";

/** Words that come with Patchwise. */
const ownWords = fileURLToPath(new URL("../../../models/words", import.meta.url));

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
  const tokenizer = loadTokenizer(await readJson(path));
  return using(join(folder, "words.safetensors"), async (weights) => {
    const entry = weights.entries.get("words");
    if (entry?.shape.length !== 2 || entry.shape[0] !== tokenizer.size) {
      throw new FormatError(
        `${weights.name} must hold "words" of shape [${tokenizer.size}, width], one row for each piece of ${path}.`,
      );
    }
    return { tokenizer, tokenizerFile, vectors: await readFloat32(entry) };
  });
}

/**
 * First values of the weights of these names, drawn or read each time they are asked for.
 *
 * @param from a trained folder or a weights file; what it holds under the same name and shape is taken, and it must hold all
 * @param keyOf how the file calls a weight, where it is not by its own name
 * @throws FormatError when `from` is of another model
 */
export async function initialWeights(
  params: ParamsRoot,
  key: RandomKey,
  words: WordTable | undefined,
  from: string | undefined,
  keyOf: (name: string) => string = (name) => name,
): Promise<(names: readonly string[]) => Promise<Record<string, NdArray>>> {
  if (from === undefined) {
    return async (names) => {
      const drawn = names.filter((name) => !(words && name === wordsKey));
      const declared = new Map(drawn.map((name) => [name, params.declared.get(name)!]));
      const values = initialize({ declared }, key);
      return Object.fromEntries(names.map((name) => [name, values[name] ?? words!.vectors]));
    };
  }
  const isFolder = (await stat(from).catch(() => undefined))?.isDirectory();
  const path = isFolder ? join(from, modelFiles.weights) : from;
  await using(path, async (weights) => {
    for (const [name, { tensor }] of params.declared) {
      const entry = weights.entries.get(keyOf(name));
      const shape = resolve(tensor.shape, undefined);
      if (entry?.shape.join() !== shape.join()) {
        throw new FormatError(
          `${weights.name} is of another model than the config: ${name} is ${entry ? `[${entry.shape.join(", ")}]` : "missing"} there, but [${shape.join(", ")}] here; set model as it was trained.`,
        );
      }
    }
  });
  return (names) =>
    using(path, async (weights) => {
      const values: Record<string, NdArray> = {};
      for (const name of names) values[name] = await readFloat32(weights.entries.get(keyOf(name))!);
      return values;
    });
}

/** What `use` makes of a file of weights, which is open as long. */
async function using<T>(path: string, use: (weights: Weights) => Promise<T>): Promise<T> {
  const weights = await openSafetensorsFile(path);
  try {
    return await use(weights);
  } finally {
    await weights.close();
  }
}
