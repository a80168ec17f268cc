import { describe, expect, it } from "vitest";
import { promptLines } from "../../src/bulk/lines.ts";

const read = (text: string, file = "a.jsonl", defaults = {}) => promptLines(text, file, defaults);

describe("a file of prompts", () => {
  it("has a picture a line, with the settings of the line before those of the command", () => {
    const text = [
      '{"prompt":"red heart","seed":7,"steps":3,"name":"heart"}',
      '{"prompt":"cat","negative":"dog","size":"64x48"}',
      '{"class":3,"guidance":1}',
    ].join("\n");
    expect(read(text, "a.jsonl", { steps: 9, width: 8, height: 8, seed: 100 })).toEqual([
      {
        number: 1,
        name: "heart",
        request: { prompt: "red heart", seed: 7, steps: 3, width: 8, height: 8 },
      },
      {
        number: 2,
        name: "000002",
        request: {
          prompt: "cat",
          negativePrompt: "dog",
          steps: 9,
          width: 64,
          height: 48,
          seed: 101,
        },
      },
      {
        number: 3,
        name: "000003",
        request: { class: 3, guidance: 1, steps: 9, width: 8, height: 8, seed: 102 },
      },
    ]);
  });

  it("may be plain texts, begin with a byte order mark, have Windows' line ends and empty lines", () => {
    const lines = read('\ufeffred heart\r\n\r\n  \r\n{"prompt":"cat"}\r\n', "b.TXT");
    expect(lines.map(({ number, request }) => [number, request.prompt, request.seed])).toEqual([
      [1, "red heart", 0],
      [4, '{"prompt":"cat"}', 3],
    ]);
    expect(read('\ufeff{"prompt":"cat"}\r\n').map(({ name }) => name)).toEqual(["000001"]);
  });

  it("may have ten thousand lines and long prompts", () => {
    const long = "red heart ".repeat(10_240);
    const text =
      `${JSON.stringify({ prompt: long })}\n`.repeat(20) + '{"prompt":"x"}\n'.repeat(1e4);
    const lines = read(text);
    expect(lines).toHaveLength(10_020);
    expect(lines[19]!.request.prompt).toBe(long);
    expect(lines.at(-1)!.name).toBe("010020");
  });

  it.each([
    [
      '{"prompt":"a"}\n{"promt":"b"}',
      /^a.jsonl, line 2: there is no option "promt"; did you mean prompt\? Nothing was drawn\.$/,
    ],
    ['{"prompt":"a","steps":"4"}', /^a.jsonl, line 1: steps must be a whole number .*, got "4"/],
    ['{"prompt":"a","steps":0}', /line 1: steps must be/],
    ['{"prompt":"a","count":2}', /line 1: a line is one picture, so it takes no count/],
    ['{"prompt":"a","image":"b.png"}', /line 1: image must be/],
    ['{"prompt":"a"', /line 1: this is not JSON \(.*\): "{\\"prompt\\":\\"a\\"";/],
    ['"red heart"', /line 1: expected an object/],
    [
      "[1]\n2\nnull\ntrue\n3",
      /line 1: .* line 2: .* line 3: .*; and 2 more of its lines cannot be read; nothing/,
    ],
    [
      '{"prompt":"a","name":"x"}\n{"prompt":"b","name":"X"}',
      /line 2: line 1 has a picture of the name "x" already, which some file systems take for the same as "X"; give each a name of its own; nothing was drawn\.$/,
    ],
    [
      '{"prompt":"a","name":"straße"}\n{"prompt":"b","name":"STRASSE"}',
      /line 2: line 1 has a picture of the name "straße" already, which/,
    ],
    [
      '{"prompt":"a","name":"ΟΔΟΣ"}\n{"prompt":"b","name":"οδοσ"}',
      /line 2: line 1 has a picture of the name "ΟΔΟΣ" already, which/,
    ],
    ['{"prompt":"a","name":"COM\u00b9"}', /line 1: the name "COM¹" stands for a device on Windows/],
    [
      '{"prompt":"a","stepz":1}\n[1]',
      /^a.jsonl, line 1: there is no option "stepz"; did you mean steps.*\? Line 2: expected .*; nothing was drawn\.$/,
    ],
    [
      '{"prompt":"a","name":"000002"}\n{"prompt":"b"}',
      /line 2: line 1 has a picture of the name "000002"/,
    ],
    ["", /^a.jsonl has no line with a prompt/],
    ["\n \n", /^a.jsonl has no line with a prompt/],
  ])("is refused as a whole with one sentence: %j", (text, sentence) => {
    expect(() => read(text)).toThrow(sentence);
    expect(() => read(text)).toThrow(/^[^\n]*\.$/);
  });

  it.each([
    "../x",
    "a/b",
    "a\\b",
    "..",
    ".",
    "",
    " a",
    "a.png",
    "a\nb",
    "nul",
    "a:b",
    "x".repeat(201),
    7,
    null,
  ])("takes no name %j", (name) => {
    expect(() => read(JSON.stringify({ prompt: "a", name }))).toThrow(
      /^a.jsonl, line 1: the name .*; give one such as "red-heart-7"/,
    );
  });

  it("is known by the ending of its name", () => {
    expect(() => read("a", "prompts")).toThrow(/^prompts does not say by the ending of its name/);
    expect(() => read("a", "prompts.csv")).toThrow(/name it .jsonl .* or .txt/);
  });
});
