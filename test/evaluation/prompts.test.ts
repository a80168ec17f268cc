import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../../src/engine/errors.ts";
import { colourAskedFor } from "../../src/evaluation/colour.ts";
import { firstOfEachKind, readPrompts } from "../../src/evaluation/prompts.ts";

const line = (more: object = {}) =>
  JSON.stringify({
    prompt: "red apple",
    lang: "en",
    kind: "training",
    answers: ["1F34E"],
    ...more,
  });

describe("prompts to evaluate with", () => {
  it("are read from JSON lines, without the empty ones", () => {
    const prompts = readPrompts(`${line()}\n\n${line({ lang: "zh", style: "flat" })}\n`, "p.jsonl");
    expect(prompts.map(({ lang }) => lang)).toEqual(["en", "zh"]);
    expect(prompts[1]!.style).toBe("flat");
  });

  it.each([
    ["an unknown key", line({ answer: [] }), /p\.jsonl, line 2: the key "answer" .*answers/],
    ["a missing key", '{"prompt":"x"}', /line 2: lang is missing; add it/],
    ["no answers", line({ answers: [] }), /line 2: answers is wrong: there is at least one/],
    ["an answer that is no hexcode", line({ answers: ["apple"] }), /line 2: answers\.0 .*1F34E/],
    ["an unknown language", line({ lang: "de" }), /line 2: lang is wrong/],
    ["a line that is not JSON", "red apple", /line 2 is not JSON/],
    ["a colour prompt without a colour", line({ kind: "colour", prompt: "heart" }), /line 2.*red/],
  ])("are refused for %s, with the line", (_, second, message) => {
    const read = () => readPrompts(`${line()}\n${second}\n`, "p.jsonl");
    expect(read).toThrow(FormatError);
    expect(read).toThrow(message);
  });

  it("are refused if there are none", () => {
    expect(() => readPrompts("\n", "p.jsonl")).toThrow(UsageError);
  });

  it("can be limited to the first ones of each kind", () => {
    const kinds = ["a", "b", "a", "a", "b"].map((kind) => line({ kind })).join("\n");
    const first = firstOfEachKind(readPrompts(kinds, "p.jsonl"), 2);
    expect(first.map(({ kind }) => kind)).toEqual(["a", "b", "a", "b"]);
  });

  it("ask for the first colour that they name, in both languages", () => {
    expect(["blue heart", "粉红色的心", "红色的心", "a redwood"].map(colourAskedFor)).toEqual([
      "blue",
      "pink",
      "red",
      undefined,
    ]);
  });
});

describe("the bundled prompts", () => {
  const file = "models/prompts/emoji.jsonl";
  const prompts = readPrompts(readFileSync(file, "utf8"), file);
  const count = (kind: string, lang: string) =>
    prompts.filter((prompt) => prompt.kind === kind && prompt.lang === lang).length;

  it("are 500 of the training vocabulary, 100 held-out emoji and 100 compositions in two languages", () => {
    for (const lang of ["en", "zh"]) {
      expect(count("training", lang)).toBe(250);
      expect(count("held-out", lang)).toBe(50);
      expect(count("composition", lang)).toBe(50);
      expect(count("colour", lang)).toBe(32);
    }
  });

  it("have both languages and every form among the first ones", () => {
    const first = firstOfEachKind(prompts, 25);
    expect(new Set(first.map(({ lang }) => lang)).size).toBe(2);
    expect(new Set(first.flatMap(({ form }) => form ?? [])).size).toBe(4);
  });
});
