/** Further pieces for a word table, so that no text is lost to the network that reads with it. */
import * as z from "zod";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, normal, randomKey } from "../../engine/random/random.ts";
import { bytePiece, loadTokenizer } from "../../text/tokenizer.ts";
import { parsedJson } from "../../weights/sources/folder.ts";
import type { WordTable } from "./words.ts";

/** A log-probability. JSON has no NaN, and writes null in its place, which counts as 0. */
const score = z
  .number()
  .nullable()
  .transform((value) => value ?? 0);

/** The kind of tokenizer that takes further pieces: a list of pieces with their log-probabilities. */
const unigram = z.looseObject({
  model: z.looseObject({
    type: z.literal("Unigram"),
    vocab: z.array(z.tuple([z.string(), score])).min(1),
    byte_fallback: z.boolean().optional(),
  }),
});

type Unigram = z.output<typeof unigram>;

/**
 * Adds a piece for each character that the table lacks, and one for each byte, by which all other text is spelt. The vectors
 * of new pieces are normally distributed and follow from the piece alone.
 *
 * @param characters those of the captions to train on
 * @returns the same table if its tokenizer is of another kind, such as pairs of bytes
 */
export function completeWords(words: WordTable, characters: string): WordTable {
  const json = unigramIn(words.tokenizerFile);
  if (!json) return words;
  const known = new Set(json.model.vocab.map(([piece]) => piece));
  const lacking = words.tokenizer
    .unknownCharacters(characters)
    .filter((each) => /^[^\s\p{Cc}\ufffd]$/u.test(each));
  const bytes = Array.from({ length: 256 }, (_, byte) => bytePiece(byte));
  const pieces = [...bytes, ...lacking.sort()].filter((piece) => !known.has(piece));
  // Not lower than any other, which would also lower the score of what is unknown.
  const least = json.model.vocab.reduce((so, [, each]) => Math.min(so, each), 0);
  const { model } = json;
  const file = {
    ...json,
    model: {
      ...model,
      vocab: [...model.vocab, ...pieces.map((piece) => [piece, least] as const)],
      byte_fallback: true,
    },
  };
  return wordsWith(words, new TextEncoder().encode(JSON.stringify(file)));
}

/**
 * The table of another tokenizer: a piece has its vector in `words`, or one that follows from its name if it has none there.
 *
 * @param tokenizerFile the content of a tokenizer.json
 * @returns the same table if one of the tokenizers does not list its pieces
 */
export function wordsWith(words: WordTable, tokenizerFile: Uint8Array): WordTable {
  const before = unigramIn(words.tokenizerFile);
  const json = unigramIn(tokenizerFile);
  if (!before || !json) return words;
  return {
    tokenizer: loadTokenizer(json),
    tokenizerFile,
    vectors: vectorsOf(json, before, words.vectors),
  };
}

function vectorsOf(
  json: Unigram,
  before: Unigram,
  { shape, data }: NdArray<"float32">,
): NdArray<"float32"> {
  const width = shape[1]!;
  const rows = new Map(before.model.vocab.map(([piece], row) => [piece, row]));
  const { vocab } = json.model;
  const vectors = new Float32Array(vocab.length * width);
  const key = fork(randomKey(0), "words");
  for (const [i, [piece]] of vocab.entries()) {
    const row = rows.get(piece);
    const vector =
      row === undefined
        ? normal(fork(key, piece), [width]).data
        : data.subarray(row * width, (row + 1) * width);
    vectors.set(vector, i * width);
  }
  return ndarray("float32", [vocab.length, width], vectors);
}

function unigramIn(tokenizerFile: Uint8Array): Unigram | undefined {
  const parsed = unigram.safeParse(
    parsedJson(new TextDecoder().decode(tokenizerFile), "tokenizer.json"),
  );
  return parsed.data;
}
