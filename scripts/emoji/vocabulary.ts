/** The vocabulary of the bundled model: that of models/words, and a piece for every Chinese character and emoji of the captions. */
import { readFile } from "node:fs/promises";
import { ndarray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { loadTokenizer, type Tokenizer } from "../../src/text/tokenizer.ts";
import { diskFolder } from "../../src/weights/sources/folder-node.ts";
import { readWords } from "../../src/training/tasks/words.ts";

/** The score of a character, by which it is chosen before the piece for unknown text. */
const CHARACTER_SCORE = -9;

interface TokenizerJson {
  model: { vocab: [piece: string, score: number][] };
}

export interface Vocabulary {
  readonly tokenizer: Tokenizer;
  /** The content of tokenizer.json. */
  readonly file: Uint8Array;
  /** The number of pieces of models/words, which come first. */
  readonly pretrained: number;
  /** First values of the word vectors, [size, 128]. */
  readonly vectors: NdArray<"float32">;
}

export async function vocabularyWith(characters: ReadonlySet<string>): Promise<Vocabulary> {
  const words = await readWords(diskFolder("models/words"));
  const json = JSON.parse(await readFile("models/words/tokenizer.json", "utf8")) as TokenizerJson;
  const known = new Set(json.model.vocab.map(([piece]) => piece));
  // As the tokenizer's normalizer writes them.
  const added = [...new Set([...characters].map((each) => each.normalize("NFKC")))]
    .filter((each) => /^.$/u.test(each) && !known.has(each))
    .sort();
  for (const character of added) json.model.vocab.push([character, CHARACTER_SCORE]);
  const width = words.vectors.shape[1]!;
  const rows = normal(fork(randomKey(0), "characters"), [added.length, width]).data;
  const vectors = new Float32Array(words.vectors.data.length + rows.length);
  vectors.set(words.vectors.data);
  vectors.set(rows, words.vectors.data.length);
  const file = new TextEncoder().encode(JSON.stringify(json));
  return {
    tokenizer: loadTokenizer(json),
    file,
    pretrained: words.vectors.shape[0]!,
    vectors: ndarray("float32", [json.model.vocab.length, width], vectors),
  };
}
