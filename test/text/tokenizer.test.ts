import { readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { decodeSentencePiece } from "../../src/text/sentencepiece-proto.ts";
import { bytePiece, loadTokenizer } from "../../src/text/tokenizer.ts";
import { tinyTokenizer } from "../support/tiny-model.ts";

const root = path.resolve(import.meta.dirname, "../..");
const file = readFileSync(path.join(root, "models/words/tokenizer.json"), "utf8");
const json = JSON.parse(file) as { model: { vocab: [string, number][] } };
const tokenizer = loadTokenizer(json);

/** The pieces of a text, in words. */
function piecesOf(text: string, length = 32): string {
  const { ids, mask } = tokenizer.encode(text, length);
  const count = mask.reduce((sum, bit) => sum + bit, 0);
  return [...ids.subarray(0, count)].map((id) => json.model.vocab[id]![0]).join(" ");
}

describe("the bundled tokenizer", () => {
  it.each([
    ["a red apple, flat style", "▁a ▁red ▁apple , ▁flat ▁style"],
    ["A Red  APPLE ", "▁a ▁red ▁apple"],
    ["flowers", "▁flower s"],
    ["antique", "▁anti que"],
    ["woman’s boot", "▁woman ' s ▁boot"],
    ["3d twemoji", "▁3d ▁twemoji"],
    ["ﬁre", "▁fire"],
    ["red 苹果", "▁red ▁ \ufffd"],
    ["", ""],
  ])("cut %j", (text, pieces) => {
    expect(piecesOf(text)).toBe(pieces);
  });

  it("names the characters that no piece holds", () => {
    expect(tokenizer.unknownCharacters("a 🦄 苹果苹 Жук")).toEqual([
      "🦄",
      "苹",
      "果",
      "ж",
      "у",
      "к",
    ]);
    expect(tokenizer.unknownCharacters("A red apple")).toEqual([]);
    expect(tinyTokenizer.unknownCharacters("ß?ß")).toEqual(["ß", "?"]);
  });

  it("have distinct ids", () => {
    expect(tokenizer.size).toBe(json.model.vocab.length);
    expect(new Set(json.model.vocab.map(([piece]) => piece)).size).toBe(tokenizer.size);
  });

  it("encode any text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme" }),
        fc.integer({ min: 1, max: 8 }),
        (text, length) => {
          const { ids, mask, lost } = tokenizer.encode(text, length);
          const count = mask.reduce((sum, bit) => sum + bit, 0);
          expect(ids).toHaveLength(length);
          expect([...mask]).toEqual(Array.from({ length }, (_, i) => (i < count ? 1 : 0)));
          expect(Math.max(...ids)).toBeLessThan(tokenizer.size);
          expect(Math.min(...ids)).toBeGreaterThanOrEqual(0);
          expect([...ids.subarray(count)].every((id) => id === 0)).toBe(true);
          expect(text).toContain(lost);
          expect(lost === "" || count === length).toBe(true);
        },
      ),
      { seed: 1 },
    );
  });
});

describe("a precompiled table of replacements", () => {
  const { precompiledCharsmap } = decodeSentencePiece(
    readFileSync(path.join(root, "test/fixtures/sentencepiece/nmt_nfkc.model")),
  );
  const table = {
    type: "Precompiled",
    precompiled_charsmap: Buffer.from(precompiledCharsmap).toString("base64"),
  };
  const characters = ["<unk>", ..."fire1株式会社 ".split("")].map((piece, i) => [piece, -i]);
  const withNormalizer = (normalizer: object) =>
    loadTokenizer({
      version: "1.0",
      normalizer,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      added_tokens: [],
      model: { type: "Unigram", unk_id: 0, vocab: characters },
    });

  it("is applied as SentencePiece does", () => {
    for (const normalizer of [table, { type: "Sequence", normalizers: [table] }]) {
      const own = withNormalizer(normalizer);
      expect(own.encode("ﬁre①㍿", 12)).toEqual(own.encode("fire1株式会社", 12));
      expect([...own.encode("fire", 4).ids]).toEqual([1, 2, 3, 4]);
    }
  });

  it.each([
    { type: "Precompiled", precompiled_charsmap: "AAAA" },
    { type: "Sequence", normalizers: [{ type: "NFC" }, table] },
  ])("is refused if it is damaged or not the first", (normalizer) => {
    expect(() => withNormalizer(normalizer)).toThrow(
      "The precompiled table of this tokenizer.json",
    );
  });
});

describe("a text that does not fit", () => {
  it("is truncated, and the truncated words are returned", () => {
    expect(tokenizer.encode("one two three, four five", 4)).toMatchObject({
      mask: Uint8Array.of(1, 1, 1, 1),
      lost: "four five",
    });
    expect(tokenizer.encode("red flowers", 2).lost).toBe("flowers");
    expect(tokenizer.encode("red flowers", 3).lost).toBe("");
    // Many words must not take memory for each of them.
    const many = "red ".repeat(20_000);
    expect(tokenizer.encode(many, 77).lost).toBe(many.slice(77 * 4).trim());
    expect(tokenizer.encode(`${" ".repeat(30_000)}red`, 4).lost).toBe("red");
  });

  it("is split into words if it has no spaces", () => {
    expect(tokenizer.encode("red,apple,green,pear", 5).lost).toBe("green,pear");
  });

  it("keeps the special tokens at both ends", () => {
    const special = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    const template = loadTokenizer({
      version: "1.0",
      added_tokens: [
        { id: 4, content: "<s>", special: true, ...special },
        { id: 5, content: "</s>", special: true, ...special },
      ],
      padding: { strategy: { Fixed: 8 }, pad_id: 5, pad_type_id: 0, pad_token: "</s>" },
      normalizer: null,
      pre_tokenizer: { type: "WhitespaceSplit" },
      post_processor: {
        type: "TemplateProcessing",
        single: [
          { SpecialToken: { id: "<s>", type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
          { SpecialToken: { id: "</s>", type_id: 0 } },
        ],
        pair: [],
        special_tokens: {
          "<s>": { id: "<s>", ids: [4], tokens: ["<s>"] },
          "</s>": { id: "</s>", ids: [5], tokens: ["</s>"] },
        },
      },
      decoder: null,
      model: {
        type: "WordLevel",
        unk_token: "a",
        vocab: { a: 0, b: 1, c: 2, d: 3, "<s>": 4, "</s>": 5 },
      },
    });
    expect(template.size).toBe(6);
    expect(template.encode("b c", 6)).toEqual({
      ids: Int32Array.of(4, 1, 2, 5, 5, 5),
      mask: Uint8Array.of(1, 1, 1, 1, 0, 0),
      lost: "",
    });
    expect(template.encode("b c d", 4)).toEqual({
      ids: Int32Array.of(4, 1, 2, 5),
      mask: Uint8Array.of(1, 1, 1, 1),
      lost: "d",
    });
  });
});

describe("a list of pieces with bytes", () => {
  const bytes = Array.from({ length: 256 }, (_, byte) => [bytePiece(byte), -20] as const);
  const spelt = (vocab: readonly (readonly [string, number])[]) =>
    loadTokenizer({ ...json, model: { ...json.model, byte_fallback: true, vocab } });

  it("spells in UTF-8 what no piece holds, as tokenizers of transformers does", () => {
    const complete = spelt([...json.model.vocab, ...bytes]);
    const first = json.model.vocab.length;
    const ids = (text: string) => [...complete.encode(text, 16).ids];
    expect(complete.size).toBe(first + 256);
    // E2 98 83 is ☃; the words around it are as they were.
    const plain = [...tokenizer.encode("red", 1).ids, ...tokenizer.encode("apple", 1).ids];
    const space = json.model.vocab.findIndex(([piece]) => piece === "▁");
    expect(ids("red ☃ apple").slice(0, 6)).toEqual([
      plain[0],
      space,
      ...[0xe2, 0x98, 0x83].map((byte) => first + byte),
      plain[1],
    ]);
    expect(ids("苹")).not.toEqual(ids("果"));
    expect(complete.countWords("红色的苹果 🦄")).toEqual({ all: 6, lost: 0 });
    expect(complete.unknownWords("a red 🦄")).toEqual(["🦄"]);
  });

  it("is refused if a byte is missing", () => {
    expect(() => spelt([...json.model.vocab, ...bytes.slice(1)])).toThrow("no piece <0x00>");
  });
});

it.each([
  [null],
  ["tokenizer"],
  [{}],
  [{ model: null }],
  [{ model: { type: "Unigram" } }],
  [{ model: { type: "Nonsense", vocab: [] } }],
  [{ model: { type: "Unigram", vocab: [], unk_id: 0 } }],
  [{ ...json, normalizer: { type: "Nonsense" } }],
  ...[{}, "a", null, { Regex: 1 }, { regex: "a" }].map((pattern): [object] => [
    { ...json, normalizer: { type: "Replace", pattern, content: " " } },
  ]),
  [{ ...json, added_tokens: [{ id: 4_000_000_000, content: "x", special: true }] }],
  [{ ...json, model: { type: "WordLevel", vocab: { a: "0" } } }],
])("refuses an invalid tokenizer (%#)", (wrong) => {
  expect(() => loadTokenizer(wrong)).toThrow(FormatError);
  expect(() => loadTokenizer(wrong)).toThrow(
    "This is not a tokenizer.json that Patchwise can read",
  );
});

it("reads no more of a long text than its tokens can take", () => {
  const long = "word ".repeat(200_000);
  const { ids, lost } = tokenizer.encode(long, 16);
  expect(ids).toEqual(tokenizer.encode("word ".repeat(100), 16).ids);
  expect(lost.length).toBeGreaterThan(long.length - 200);
  expect(tokenizer.encode("x".repeat(1_000_000), 16).lost).not.toBe("");
  expect(tokenizer.unknownWords(long)).toEqual([]);
});

it("refuses patterns that may take forever, and none of a published tokenizer", () => {
  const split = (Regex: string) => ({
    ...json,
    pre_tokenizer: { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
  });
  for (const pattern of ["(?:[a-z ]+)+!", "(a|aa)+$", "((a*)b?)*", "(a?){3,}", "([a-z]+){2,9}"]) {
    expect(() => loadTokenizer(split(pattern))).toThrow("which may take forever");
  }
  // GPT-2, GPT-4 and CLIP.
  for (const pattern of [
    String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    String.raw`[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    String.raw`<\|startoftext\|>|<\|endoftext\|>|'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`,
  ]) {
    expect(() => loadTokenizer(split(pattern))).not.toThrow();
  }
});

describe("unknownWords", () => {
  it.each([
    ["red apple", []],
    ["Two LIGHTHOUSES, glowing!", []],
    ["a flat-style cat's hat", []],
    ["draw a blorptang", ["blorptang"]],
    ["魑 cat", ["魑"]],
    ["qwrtzp qwrtzp cat", ["qwrtzp"]],
    ["", []],
  ])("names the words of %j that the vocabulary lacks", (text, unknown) => {
    expect(tokenizer.unknownWords(text)).toEqual(unknown);
  });
});
