/** tokenizer.json and the files beside it, and texts that are encoded with them. */
import { tokenizerIn } from "../../../src/text/tokenizer-folder.ts";
import { memoryFolder } from "../../../src/weights/sources/folder-memory.ts";
import { tinyTokenizerJson } from "../../../test/support/tiny-model.ts";
import { jsonValues, textWords } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const texts = [
  "",
  "a red cat on the moon",
  "<x> caféﬁ 苹果 💥\u0000\ud800",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ".repeat(40),
];

const token = { single_word: false, lstrip: false, rstrip: true, normalized: false, special: true };

const bpe = {
  added_tokens: [{ id: 6, content: "<x>", ...token }],
  normalizer: {
    type: "Sequence",
    normalizers: [{ type: "NFC" }, { type: "Replace", pattern: { Regex: "\\s+" }, content: " " }],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "'s|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
        behavior: "Removed",
        invert: true,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
    ],
  },
  post_processor: {
    type: "RobertaProcessing",
    sep: ["<x>", 6],
    cls: ["<x>", 6],
    trim_offsets: false,
    add_prefix_space: false,
  },
  decoder: { type: "ByteLevel" },
  model: {
    type: "BPE",
    unk_token: "u",
    continuing_subword_prefix: "",
    end_of_word_suffix: "</w>",
    fuse_unk: false,
    vocab: { u: 0, a: 1, b: 2, ab: 3, "a</w>": 4, "aba</w>": 5 },
    merges: [
      ["a", "b"],
      ["ab", "a</w>"],
    ],
  },
};

const unigram = {
  added_tokens: [{ id: 0, content: "<pad>", ...token }],
  padding: { pad_id: 0 },
  normalizer: { type: "Lowercase" },
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "<pad>", type_id: 0 } }],
    special_tokens: { "<pad>": { id: "<pad>", ids: [0], tokens: ["<pad>"] } },
  },
  decoder: { type: "Metaspace", replacement: "▁" },
  model: {
    type: "Unigram",
    unk_id: 1,
    vocab: [
      ["<pad>", 0],
      ["<unk>", 0],
      ["▁a", -1.5],
      ["▁", -2],
      ["red", -3],
      ["c", -4],
      ["at", -4],
    ],
  },
};

const config = { pad_token: "[PAD]", added_tokens_decoder: { 12: { content: "<new>", ...token } } };

/** The files of a folder as one JSON object. */
const sound = [
  {
    "tokenizer.json": tinyTokenizerJson,
    "tokenizer_config.json": config,
    "added_tokens.json": { "<y>": 13 },
  },
  { "tokenizer.json": bpe },
  { "tokenizer.json": unigram },
  {
    "vocab.json": {
      "a</w>": 0,
      a: 1,
      b: 2,
      "b</w>": 6,
      "ab</w>": 3,
      "<|startoftext|>": 4,
      "<|endoftext|>": 5,
    },
    "merges.txt": "#version: 0.2\na b</w>\n",
  },
].map((files) => new TextEncoder().encode(JSON.stringify(files)));

/** A damaged object is taken apart again; other bytes are the tokenizer.json itself. */
function filesOf(input: Uint8Array): Record<string, Uint8Array> {
  let content: unknown;
  try {
    content = JSON.parse(new TextDecoder().decode(input));
  } catch {
    return { "tokenizer.json": input };
  }
  const encode = (value: unknown) =>
    new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
  return Object.fromEntries(
    Object.entries(content ?? {}).map(([name, value]) => [name, encode(value)]),
  );
}

export const open: OpenTarget = () => ({
  sound,
  mutations: [jsonValues, jsonValues, jsonValues, textWords],
  async read(input) {
    const tokenizer = await tokenizerIn(memoryFolder(filesOf(input), "folder"));
    for (const text of texts) {
      tokenizer.encode(text, 16);
      tokenizer.unknownWords(text);
    }
  },
});
