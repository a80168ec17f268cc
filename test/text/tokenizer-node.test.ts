import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { openTokenizer } from "../../src/text/index-node.ts";

const root = path.resolve(import.meta.dirname, "../..");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-tokenizer-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder of these files: texts, or paths in the project to copy. */
function folderOf(name: string, files: Readonly<Record<string, unknown>>): string {
  const folder = path.join(scratch, name);
  mkdirSync(folder);
  for (const [file, content] of Object.entries(files)) {
    const target = path.join(folder, file);
    if (content instanceof URL) copyFileSync(content, target);
    else writeFileSync(target, typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}

const copy = (file: string) => new URL(`file://${path.join(root, file)}`);
const clip = {
  "vocab.json": { "!": 0, a: 1, "a</w>": 2, "aa</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5 },
  "merges.txt": "#version: 0.2\na a</w>\n",
};

describe("openTokenizer", () => {
  it("opens a tokenizer.json", async () => {
    const folder = folderOf("json", { "tokenizer.json": copy("models/words/tokenizer.json") });
    const { ids, mask } = (await openTokenizer(folder)).encode("a red apple", 5);
    expect([...mask]).toEqual([1, 1, 1, 0, 0]);
    expect([...ids].slice(3)).toEqual([0, 0]);
  });

  it("opens CLIP's two files and takes the padding token from the config", async () => {
    const ids = async (name: string, files: object) => [
      ...(await openTokenizer(folderOf(name, { ...clip, ...files }))).encode("aa a", 6).ids,
    ];
    expect(await ids("plain", {})).toEqual([4, 3, 2, 5, 5, 5]);
    expect(await ids("config", { "tokenizer_config.json": { pad_token: "!" } })).toEqual([
      4, 3, 2, 5, 0, 0,
    ]);
    expect(
      await ids("map", {
        "tokenizer_config.json": { model_max_length: 77 },
        "special_tokens_map.json": { pad_token: { content: "!", lstrip: false } },
      }),
    ).toEqual([4, 3, 2, 5, 0, 0]);
  });

  it("knows tokens that were added to a vocabulary, in each form of their files", async () => {
    const decoder = {
      added_tokens_decoder: {
        6: { content: "<toy>", lstrip: false, rstrip: false, normalized: true, special: false },
      },
    };
    const ids = async (name: string, files: Readonly<Record<string, unknown>>) => [
      ...(await openTokenizer(folderOf(name, files))).encode("aa <toy> a", 7).ids,
    ];
    const expected = [4, 3, 6, 2, 5, 5, 5];
    expect(await ids("added", { ...clip, "added_tokens.json": { "<toy>": 6 } })).toEqual(expected);
    expect(await ids("decoder", { ...clip, "tokenizer_config.json": decoder })).toEqual(expected);
    const file = readFileSync(path.join(root, "models/words/tokenizer.json"), "utf8");
    const whole = JSON.parse(file) as { model: { vocab: unknown[] } };
    const id = whole.model.vocab.length;
    const words = await openTokenizer(
      folderOf("whole", { "tokenizer.json": whole, "added_tokens.json": { "<toy>": id } }),
    );
    expect(words.size).toBe(id + 1);
    expect([...words.encode("red <toy>", 4).ids]).toContain(id);
    const pieces = folderOf("pieces-added", {
      "spiece.model": copy("test/fixtures/sentencepiece/nmt_nfkc.model"),
      "added_tokens.json": { "<toy>": 9000, "<extra_id_0>": 8000 },
    });
    await expect(openTokenizer(pieces)).rejects.toThrow('has no piece "<toy>", which was added');
    const wrong = folderOf("added-wrong", { ...clip, "added_tokens.json": { "<toy>": "six" } });
    await expect(openTokenizer(wrong)).rejects.toThrow("added_tokens.json has tokens that are not");
  });

  it("opens a spiece.model", async () => {
    const folder = folderOf("pieces", {
      "spiece.model": copy("test/fixtures/sentencepiece/nmt_nfkc.model"),
      "special_tokens_map.json": { eos_token: "</s>", pad_token: "<pad>" },
    });
    const { ids, mask } = (await openTokenizer(folder)).encode("a photo", 9);
    const count = mask.reduce((sum, bit) => sum + bit, 0);
    expect(ids[count - 1]).toBe(1);
    expect([...ids].slice(count).every((id) => id === 0)).toBe(true);
  });

  it("names the missing or invalid file", async () => {
    const faults: readonly (readonly [string, object, string])[] = [
      ["empty", {}, "there is neither a tokenizer.json, nor a vocab.json with a merges.txt, nor a"],
      ["half", { "vocab.json": "{}" }, "holds no tokenizer"],
      ["broken", { "tokenizer.json": "{" }, "tokenizer.json is not valid JSON"],
      ["vocab", { ...clip, "vocab.json": "[]" }, "vocab.json is not an object"],
      ["padding", { ...clip, "tokenizer_config.json": { pad_token: 3 } }, '"pad_token"'],
      ["unknown", { ...clip, "tokenizer_config.json": { pad_token: "x" } }, 'pads with "x"'],
      ["model", { "spiece.model": "\u0001\u0002" }, "spiece.model is not a SentencePiece model"],
    ];
    for (const [name, files, message] of faults) {
      const folder = folderOf(`fault-${name}`, { ...files });
      const opened = openTokenizer(folder);
      await expect(opened).rejects.toThrow(FormatError);
      await expect(opened).rejects.toThrow(message);
    }
    expect(faults).toHaveLength(7);
  });
});
