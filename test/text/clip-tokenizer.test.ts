import { readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { loadClipTokenizer } from "../../src/text/clip-tokenizer.ts";

/** The first 2,048 of the 48,894 merges of OpenAI's CLIP (MIT License), so that frequent words have their true ids. */
const merges = readFileSync(
  path.resolve(import.meta.dirname, "../fixtures/clip/merges.txt"),
  "utf8",
);
const pairs = merges.trim().split("\n").slice(1);

/** Printable characters for all bytes, those that print first. */
const units = (() => {
  const printing = [...new Array(256).keys()].filter(
    (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173),
  );
  const others = [...new Array(256).keys()].filter((byte) => !printing.includes(byte));
  return new Map([
    ...printing.map((byte) => [byte, String.fromCharCode(byte)] as const),
    ...others.map((byte, i) => [byte, String.fromCharCode(256 + i)] as const),
  ]);
})();

const pieces = [
  ...units.values(),
  ...[...units.values()].map((unit) => `${unit}</w>`),
  ...pairs.map((pair) => pair.replace(" ", "")),
  "<|startoftext|>",
  "<|endoftext|>",
];
const vocabulary = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
const [start, end] = [pieces.length - 2, pieces.length - 1];
const files = { vocabulary, merges };
const tokenizer = loadClipTokenizer(files, "tokenizer");

function idsOf(text: string, length = 400): number[] {
  const { ids, mask } = tokenizer.encode(text, length);
  return [...ids].slice(
    0,
    mask.reduce((sum, bit) => sum + bit, 0),
  );
}

/** By the definition: in each word, the most frequent pair is joined everywhere, until no pair is known. */
function defined(text: string): number[] {
  const words = text
    .normalize("NFC")
    .toLowerCase()
    .match(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu);
  const ids = (words ?? []).flatMap((word) => {
    let parts = [...new TextEncoder().encode(word)].map((byte) => units.get(byte)!);
    parts.push(`${parts.pop()}</w>`);
    for (;;) {
      const ranks = parts.slice(1).map((part, i) => pairs.indexOf(`${parts[i]} ${part}`));
      const best = Math.min(...ranks.filter((rank) => rank >= 0));
      if (best === Infinity) return parts.map((part) => vocabulary[part]!);
      const [first, second] = pairs[best]!.split(" ");
      const next: string[] = [];
      for (let i = 0; i < parts.length; i++) {
        const joins = parts[i] === first && parts[i + 1] === second;
        next.push(joins ? first! + second! : parts[i]!);
        if (joins) i++;
      }
      parts = next;
    }
  });
  return [start, ...ids, end];
}

describe("CLIP's tokenizer", () => {
  it("uses the ids of OpenAI's vocabulary", () => {
    expect(idsOf("a photo of a cat")).toEqual([start, 320, 1125, 539, 320, 2368, end]);
  });

  it("ignores case and repeated spaces", () => {
    const same = ["  A photo\tOF\n a   Cat ", "a  photo of a\u00a0cat", "A PHOTO OF A CAT\u3000"];
    for (const text of same) expect(idsOf(text)).toEqual(idsOf("a photo of a cat"));
    expect(idsOf("cafe\u0301")).toEqual(idsOf("café"));
  });

  it("tokenizes as the reference definition does", () => {
    const unit = fc.oneof(
      { weight: 5, arbitrary: fc.constantFrom(..."the cat's 3d PHOTO don't !!,.-_".split("")) },
      {
        weight: 2,
        arbitrary: fc.constantFrom("they're", "I'LL", " of ", "\n", "é", "い", "🙂", "½"),
      },
      { weight: 1, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }) },
    );
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 30 }), (parts) => {
        const text = parts.join("");
        // The names of special pieces are special.
        fc.pre(!text.includes("<|"));
        expect(idsOf(text)).toEqual(defined(text));
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it("pads with the end token or a given one", () => {
    expect([...tokenizer.encode("a cat", 7).ids]).toEqual([start, 320, 2368, end, end, end, end]);
    const other = loadClipTokenizer(files, "tokenizer", { padding: "!" });
    expect(other.encode("a cat", 7)).toEqual({
      ids: Int32Array.of(start, 320, 2368, end, 0, 0, 0),
      mask: Uint8Array.of(1, 1, 1, 1, 0, 0, 0),
      lost: "",
    });
    expect(other.size).toBe(pieces.length);
  });

  it("truncates long texts, keeps both special tokens, and returns the truncated part", () => {
    expect(tokenizer.encode("a photo of a cat", 5)).toMatchObject({
      ids: Int32Array.of(start, 320, 1125, 539, end),
      lost: "a cat",
    });
  });
});

describe("files that do not fit each other", () => {
  const smaller = Object.fromEntries(Object.entries(vocabulary).filter(([, id]) => id !== 600));
  it.each([
    [{ vocabulary: [], merges }, "x: vocab.json is not an object with an id for each token"],
    [{ vocabulary: { a: "1" }, merges }, "is not an object with an id for each token"],
    [{ vocabulary: { a: -1 }, merges }, "is not an object with an id for each token"],
    [{ vocabulary: { a: 4_000_000_000 }, merges }, "does not number its 1 pieces from 0 to 0"],
    [{ vocabulary: { a: 0, b: 0 }, merges }, "does not number its 2 pieces"],
    [{ vocabulary: { a: 0 }, merges }, 'has no piece "<|startoftext|>"'],
    [{ vocabulary: smaller, merges }, "does not number its 2561 pieces"],
    [{ vocabulary, merges: "#version: 0.2\ni n x\n" }, 'line 2 of merges.txt is "i n x"'],
    [{ vocabulary, merges: "i" }, 'line 1 of merges.txt is "i"'],
    [{ vocabulary, merges: "q q" }, "which does not merge two tokens of vocab.json into a third"],
  ])("are refused (%#)", (wrong, message) => {
    expect(() => loadClipTokenizer(wrong, "x")).toThrow(FormatError);
    expect(() => loadClipTokenizer(wrong, "x")).toThrow(message);
  });

  it("are refused if they lack the padding token", () => {
    expect(() => loadClipTokenizer(files, "x", { padding: "[PAD]" })).toThrow(
      'pads with "[PAD]", which is not in its vocabulary',
    );
  });

  it("never crash", () => {
    const entries = fc.dictionary(
      fc.constantFrom("a", "b", "ab", "<|startoftext|>", "<|endoftext|>", "__proto__"),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(entries, fc.string(), (random, text) => {
        try {
          loadClipTokenizer({ vocabulary: random, merges: text }, "x").encode(text, 4);
          return true;
        } catch (error) {
          return error instanceof FormatError;
        }
      }),
      { seed: 1, numRuns: 500 },
    );
    const tiny = { a: 0, b: 1, ab: 2, "<|startoftext|>": 3, "<|endoftext|>": 4 };
    expect([
      ...loadClipTokenizer({ vocabulary: tiny, merges: "a b" }, "x").encode("ab c", 5).ids,
    ]).toEqual([3, 0, 4, 4, 4]);
  });
});
