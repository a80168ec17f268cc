import { readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { loadSentencePiece } from "../../src/text/sentencepiece.ts";
import type { Tokenizer } from "../../src/text/tokenizer.ts";

/**
 * Models that SentencePiece 0.1.97 trained on this project's texts, and what it makes of random ones: one tidies texts as
 * T5's does, the other leaves them as they are and has pieces that were defined.
 */
const fixtures = path.resolve(import.meta.dirname, "../fixtures/sentencepiece");
const bytesOf = (name: string) =>
  new Uint8Array(readFileSync(path.join(fixtures, `${name}.model`)));
const tidy = bytesOf("nmt_nfkc");

/** The ids of a text, without padding. */
function idsOf(tokenizer: Tokenizer, text: string, length = 500): number[] {
  const { ids, mask } = tokenizer.encode(text, length);
  return [...ids].slice(
    0,
    mask.reduce((sum, bit) => sum + bit, 0),
  );
}

describe.each(["nmt_nfkc", "identity"])("a model of SentencePiece's (%s)", (name) => {
  it("tokenizes as SentencePiece does, with the end token", () => {
    const tokenizer = loadSentencePiece(bytesOf(name), name);
    const cases = JSON.parse(readFileSync(path.join(fixtures, `${name}.json`), "utf8")) as [
      string,
      number[],
    ][];
    expect(cases.length).toBeGreaterThanOrEqual(150);
    for (const [text, ids] of cases) {
      expect([text, idsOf(tokenizer, text)]).toEqual([text, [...ids, 1]]);
    }
  });
});

describe("loadSentencePiece", () => {
  const tokenizer = loadSentencePiece(tidy, "spiece.model");

  it("pads, and does not parse names of special tokens in a text", () => {
    expect(tokenizer.size).toBe(800);
    expect(tokenizer.encode("", 3)).toEqual({
      ids: Int32Array.of(1, 0, 0),
      mask: Uint8Array.of(1, 0, 0),
      lost: "",
    });
    expect(
      idsOf(tokenizer, "</s><pad><unk>")
        .slice(0, -1)
        .some((id) => id < 2),
    ).toBe(false);
    expect(idsOf(tokenizer, "\ud8001")).toEqual(idsOf(tokenizer, "\ufffd1"));
    const other = loadSentencePiece(tidy, "spiece.model", { padding: "▁a" });
    expect(other.encode("", 2).ids[1]).toBe(idsOf(tokenizer, "a")[0]);
  });

  it("truncates long texts, keeps the end token, and returns the truncated part", () => {
    const whole = idsOf(tokenizer, "a red cat on a blue table");
    const { ids, lost } = tokenizer.encode("a red cat on a blue table", 4);
    expect([...ids]).toEqual([...whole.slice(0, 3), 1]);
    expect(lost).not.toBe("");
    expect("a red cat on a blue table".endsWith(lost)).toBe(true);
  });
});

const NORMAL = 1;

/** A model of these pieces, each with its score and type; "" leaves a part out. */
function modelOf(
  pieces: readonly (readonly [piece: string, score: number, type: number])[],
  trainer: Readonly<Record<number, number>> = {},
  normalizer: { readonly [field: number]: number; readonly table?: Uint8Array } = {},
): Uint8Array {
  const writer = new BinaryWriter();
  for (const [piece, score, type] of pieces) {
    writer.uint32(10).fork().uint32(10).string(piece).uint32(21).float(score);
    writer.uint32(24).int32(type).join();
  }
  const numbers = (tag: number, fields: Readonly<Record<string, unknown>>) => {
    writer.uint32(tag).fork();
    for (const [field, value] of Object.entries(fields)) {
      if (typeof value === "number") writer.uint32(Number(field) << 3).int32(value);
      else writer.uint32(18).bytes(value as Uint8Array);
    }
    writer.join();
  };
  numbers(18, trainer);
  numbers(26, normalizer);
  return writer.finish();
}

const special = [
  ["<pad>", 0, 3],
  ["</s>", 0, 3],
  ["<unk>", 0, 2],
] as const;

describe("a hand-made model", () => {
  const load = (...args: Parameters<typeof modelOf>) =>
    loadSentencePiece(modelOf(...args), "spiece.model");

  it("splits texts by the best sum of scores", () => {
    const pieces = [...special, ["▁", -2, NORMAL], ["a", -3, NORMAL], ["b", -3, NORMAL]] as const;
    const better = load([...pieces, ["ab", -5, NORMAL]]);
    const worse = load([...pieces, ["ab", -7, NORMAL]]);
    expect(idsOf(better, " ab  a")).toEqual([3, 6, 3, 4, 1]);
    expect(idsOf(worse, " ab  a")).toEqual([3, 4, 5, 3, 4, 1]);
    // Unused pieces are never chosen.
    expect(idsOf(load([...pieces, ["ab", -5, 5]]), "ab")).toEqual([3, 4, 5, 1]);
    expect(idsOf(better, "xyz a")).toEqual([3, 2, 3, 4, 1]);
  });

  it.each([
    ["bpe", load, [special, { 3: 2 }], 'another algorithm than "unigram"'],
    ["bytes", load, [special, { 35: 1 }], "falls back to bytes"],
    ["suffixes", load, [special, { 24: 1 }], "puts spaces after words"],
    ["spaces", load, [special, {}, { 5: 0 }], "does not escape spaces"],
    ["no end", load, [[special[0], special[2]]], 'has no piece "</s>"'],
    ["no padding", load, [[special[1], special[2]]], 'has no piece "<pad>"'],
    ["no unknown", load, [[special[0], special[1]]], "no unknown piece"],
    ["nothing", load, [[]], "no unknown piece"],
    ["a piece twice", load, [[...special, special[0]]], "it has a piece twice"],
    ["an empty piece", load, [[...special, ["", 0, NORMAL]]], "one of its pieces is empty"],
    [
      "a short table",
      load,
      [special, {}, { table: Uint8Array.of(1) }],
      "damaged normalization table",
    ],
    [
      "a cut table",
      load,
      [special, {}, { table: new Uint8Array(8).fill(4) }],
      "damaged normalization table",
    ],
  ] as const)("is refused: %s", (_, open, args, message) => {
    const opened = () => open(...(args as unknown as Parameters<typeof modelOf>));
    expect(opened).toThrow(FormatError);
    expect(opened).toThrow(message);
  });
});

describe("invalid models", () => {
  /** Reads and cuts; what is refused is refused in one sentence. */
  function survives(bytes: Uint8Array, text: string): boolean {
    try {
      const { ids } = loadSentencePiece(bytes, "spiece.model").encode(text, 8);
      return ids.length === 8;
    } catch (error) {
      return error instanceof FormatError && /^spiece\.model [^\n]*\.$/.test(error.message);
    }
  }

  it("are refused for any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => survives(bytes, "a cat")),
      { seed: 1, numRuns: 500 },
    );
    expect(survives(new Uint8Array(5000).fill(0x0b), "a")).toBe(true);
    expect(() => loadSentencePiece(Uint8Array.of(255), "spiece.model")).toThrow(
      "spiece.model is not a SentencePiece model (",
    );
  });

  it("cause no crash if bytes were changed or truncated", () => {
    expect(survives(tidy.slice(0, -1), "a")).toBe(true);
    const small = modelOf(
      [...special, ["▁a", -1, NORMAL], ["b", -2, 4]],
      {},
      {
        table: Uint8Array.of(8, 0, 0, 0, 0, 4, 0, 0, 97, 9, 255, 255, 98, 0),
      },
    );
    const changes = fc.array(fc.tuple(fc.nat(small.length - 1), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(changes, fc.nat(small.length), fc.string(), (changed, length, text) => {
        const bytes = small.slice(0, length < 3 ? length : undefined);
        for (const [at, byte] of changed) if (at < bytes.length) bytes[at] = byte;
        return survives(bytes, text);
      }),
      { seed: 1, numRuns: 2000 },
    );
    // The table of characters is where walks could leave the array.
    const place = fc.integer({ min: tidy.length - 240_000, max: tidy.length - 1 });
    fc.assert(
      fc.property(fc.array(fc.tuple(place, fc.nat(255)), { maxLength: 9 }), (changed) => {
        const bytes = tidy.slice();
        for (const [at, byte] of changed) bytes[at] = byte;
        return survives(bytes, "ﬁ é Ａ ㌔…");
      }),
      { seed: 1, numRuns: 20 },
    );
  });
});
