import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { oneSentence, patchwise } from "../support/cli.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-evaluate-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const apple = { prompt: "red apple", lang: "en", kind: "training", answers: ["1F34E"] };

beforeAll(async () => {
  await writeTrained(at("classes"));
  writeFileSync(at("apple.jsonl"), `${JSON.stringify(apple)}\n`);
  writeFileSync(at("empty.jsonl"), "\n\n");
  writeFileSync(at("key.jsonl"), `${JSON.stringify({ ...apple, promt: "x" })}\n`);
});

describe("patchwise evaluate", () => {
  it.each([
    ["an unknown model", ["nothing", "--prompts", at("apple.jsonl")], /no model "nothing"/],
    ["a missing file of prompts", ["emoji", "--prompts", at("none.jsonl")], /none\.jsonl/],
    ["an empty file of prompts", ["emoji", "--prompts", at("empty.jsonl")], /holds no prompts/],
    ["an unknown key", ["emoji", "--prompts", at("key.jsonl")], /line 1: the key "promt"/],
    ["a limit of none", ["emoji", "--limit", "0"], /--limit is 0/],
    ["an unknown style", ["emoji", "--styles", "notto"], /"notto".*noto/],
    [
      "a model that draws classes",
      [at("classes"), "--prompts", at("apple.jsonl"), "--out", at("out")],
      /draws classes/,
    ],
  ])("refuses %s with a one-line error", (_, args, message) => {
    const { code, err, out } = patchwise(["evaluate", ...args]);
    const last = err.split("\n").at(-2)!;
    expect(`${last}\n`).toMatch(oneSentence);
    expect(last).toMatch(message);
    expect({ code, out }).toEqual({ code: 2, out: "" });
  });
});
