import path from "node:path";
import { expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import {
  qwen3Config,
  qwen3In,
  qwen3Params,
  qwen3Presets,
} from "../../src/models/text-encoders/qwen3.ts";
import { chatTokenizer, qwen3Template } from "../../src/text/chat.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const preset = qwen3Presets["Qwen3-4B"];

it.each([
  ["qwen3", 76],
  ["t5_masked", 2],
])("the recording %s of the original is reproduced", async (folder, outputs) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => nodeBackend("cpu")),
  );
  expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
  expect(report.outputs).toHaveLength(outputs);
});

it("Qwen3-4B has every key in its shape, and its shapes give its config", () => {
  const shapes = publishedShapes("Qwen3-4B");
  const declared = [...qwen3Params(preset).declared].map(([name, { tensor }]) => [
    `model.${name}`,
    tensor.shape,
  ]);
  expect(Object.fromEntries(declared)).toEqual(shapes);
  expect(qwen3In(shapedWeights(shapes), [36]).config).toEqual(preset);
});

it("only the layers up to the last hidden state are needed", () => {
  const shapes = Object.fromEntries(
    Object.entries(publishedShapes("Qwen3-4B")).filter(
      ([name]) => Number(/layers\.(\d+)/.exec(name)?.[1] ?? 0) < 27 && name !== "model.norm.weight",
    ),
  );
  const states = [9, 18, 27];
  const { config, weights } = qwen3In(shapedWeights(shapes), states);
  expect(config).toEqual(preset);
  expect(weights("layers.26.mlp.up_proj.weight")).toBeDefined();
  const { "model.layers.26.mlp.up_proj.weight": _, ...broken } = shapes;
  expect(() => qwen3In(shapedWeights(broken), states, preset)).toThrow(
    'it lacks "model.layers.26.mlp.up_proj.weight"',
  );
  expect(() => qwen3In(shapedWeights(shapes), [40])).toThrow("reads the output of layer 40");
});

it("every field of transformers' config that changes a result is read or refused", () => {
  const read = (fields: object) =>
    qwen3Config(fieldReader("config.json", fields as Record<string, unknown>));
  expect(read({}).theta).toBe(10_000);
  expect(read({ rope_parameters: { rope_theta: 5e6, rope_type: "default" } }).theta).toBe(5e6);
  expect(read({ num_attention_heads: 4, num_key_value_heads: null }).keyHeads).toBe(4);
  for (const fields of [
    { hidden_act: "gelu" },
    { use_sliding_window: true },
    { rope_scaling: { rope_type: "yarn", factor: 4 } },
    { rope_parameters: { rope_type: "yarn" } },
    { num_attention_heads: 6, num_key_value_heads: 4 },
    { head_dim: 5 },
    { layer_types: ["sliding_attention"] },
  ]) {
    expect(() => read(fields)).toThrow(FormatError);
  }
});

/** A byte-level BPE in the form of Qwen's tokenizer.json. */
const qwenTokenizer = {
  version: "1.0",
  added_tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"].map(
    (content, i) => ({
      id: 300 + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: i < 3,
    }),
  ),
  normalizer: { type: "NFC" },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: {
          Regex:
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        },
        behavior: "Isolated",
        invert: false,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    ],
  },
  post_processor: {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: false,
  },
  decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
  model: {
    type: "BPE",
    vocab: Object.fromEntries(
      ["a", "c", "t", "u", "s", "e", "r", "i", "n", "d", "o", "Ġ", "Ċ", "1", "2", "Ã", "©", "ĊĊ"]
        .concat(["us", "er", "user", "as", "ca", "cat", "Ġcat", "st", "an"])
        .map((token, id) => [token, id]),
    ),
    merges: ["Ċ Ċ", "u s", "e r", "us er", "a s", "c a", "ca t", "Ġ cat", "s t", "a n"],
  },
};

it("prompts are turns of a chat, with an empty block of thoughts or without", () => {
  const tokenizer = loadTokenizer(qwenTokenizer, { padding: "<|endoftext|>" });
  const { vocab } = qwenTokenizer.model;
  const id = (token: string) => vocab[token]!;
  const [start, end] = [301, 302];
  const before = [start, id("user"), id("Ċ")];
  // "as" + "s" + "i" + "st" + "an" + "t", by the order of the merges.
  const after = [end, id("Ċ"), start].concat(["as", "s", "i", "st", "an", "t", "Ċ"].map(id));
  const plain = chatTokenizer(tokenizer, qwen3Template(true));
  const encoded = plain.encode("a cat 12", 32);
  const text = ["a", "Ġcat", "Ġ", "1", "2"].map(id);
  expect(Array.from(encoded.ids.subarray(0, 18))).toEqual([...before, ...text, ...after]);
  expect(Array.from(encoded.ids.subarray(18))).toEqual(new Array(14).fill(300));
  expect(encoded.mask.reduce((sum, x) => sum + x, 0)).toBe(18);

  const closed = chatTokenizer(tokenizer, qwen3Template(false)).encode("é", 32);
  const thoughts = [303, id("ĊĊ"), 304, id("ĊĊ")];
  expect(Array.from(closed.ids.subarray(0, 19))).toEqual([
    ...before,
    id("Ã"),
    id("©"),
    ...after,
    ...thoughts,
  ]);
});

it("what is lost of a long prompt is told without the template", () => {
  const tokenizer = loadTokenizer(qwenTokenizer);
  const chat = chatTokenizer(tokenizer, qwen3Template(true));
  expect(chat.encode("a cat 12", 32).lost).toBe("");
  expect(chat.encode("a cat 12", 15).lost).toBe("");
  expect(chat.encode("a cat 12", 5).lost).toContain("12");
  expect(chat.encode("a cat 12", 5).lost).not.toContain("assistant");
});
