import { expect, it } from "vitest";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { openWords } from "../../src/training/run/words-node.ts";
import { tinyTokenizerJson } from "../support/tiny-model.ts";
import { completeWords, wordsWith } from "../../src/training/tasks/vocabulary.ts";

const words = await openWords();
const characters = "the🦄红苹果\n\ufffd";
const complete = completeWords(words, characters);

/** The vectors of the pieces of a text. */
function vectorsOf({ tokenizer, vectors }: typeof words, text: string): number[][] {
  const { ids, mask } = tokenizer.encode(text, 32);
  const width = vectors.shape[1]!;
  return [...ids]
    .filter((_, i) => mask[i] === 1)
    .map((id) => [...vectors.data.subarray(id * width, (id + 1) * width)]);
}

// toEqual takes seconds for a million numbers.
const sameBytes = (a: Float32Array, b: Float32Array) =>
  Buffer.from(a.buffer).equals(Buffer.from(b.buffer));

it("has a piece for each character of the captions, and spells others in bytes", () => {
  const count = ({ tokenizer }: typeof words, text: string) =>
    tokenizer.encode(text, 32).mask.reduce((sum, bit) => sum + bit, 0);
  expect(complete.vectors.shape).toEqual([words.tokenizer.size + 256 + 4, 128]);
  expect(complete.tokenizer.size).toBe(complete.vectors.shape[0]);
  expect(count(complete, "红苹果")).toBe(1 + 3);
  expect(count(complete, "色")).toBe(1 + 3);
  expect(complete.tokenizer.countWords("色 ☃ 🦄").lost).toBe(0);
  expect(complete.tokenizer.unknownWords("红色苹果 🦄 ☃")).toEqual(["色", "☃"]);
});

it("tells apart all texts, and keeps what it read before", () => {
  const texts = ["🦄", "🐉", "红", "色", "☃", "☂", "Привет", "שלום", "a red 🐉", "a red 🐲"];
  const read = texts.map((text) => JSON.stringify(vectorsOf(complete, text)));
  expect(new Set(read).size).toBe(texts.length);
  for (const text of ["a red apple", "flowers on the moon", "woman’s boot"]) {
    expect(vectorsOf(complete, text)).toEqual(vectorsOf(words, text));
  }
});

it("gives pieces the same vectors whatever the others are", () => {
  const other = completeWords(words, "果☃");
  expect(vectorsOf(other, "果")).toEqual(vectorsOf(complete, "果"));
  const again = wordsWith(words, complete.tokenizerFile);
  expect(sameBytes(again.vectors.data, complete.vectors.data)).toBe(true);
  const [, vector] = vectorsOf(complete, "果");
  const variance = vector!.reduce((sum, x) => sum + x * x, 0) / 128;
  expect(variance).toBeGreaterThan(0.5);
  expect(variance).toBeLessThan(2);
});

it("is complete already, or of a kind without scores", () => {
  const again = completeWords(complete, characters);
  expect(sameBytes(again.vectors.data, complete.vectors.data)).toBe(true);
  const json = {
    ...tinyTokenizerJson,
    model: { type: "WordLevel", vocab: { a: 0 }, unk_token: "a" },
  };
  const tokenizerFile = new TextEncoder().encode(JSON.stringify(json));
  const table = { ...words, tokenizer: loadTokenizer(json), tokenizerFile };
  expect(completeWords(table, characters)).toBe(table);
});
