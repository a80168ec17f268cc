/** The tokenizer in the metadata of a GGUF file, as llama.cpp writes it beside the weights of a language model. */
import { FormatError, quote } from "../engine/errors.ts";
import { modelTypes, pieceTypes } from "./sentencepiece-proto.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

type Metadata = ReadonlyMap<string, string>;

/** How Qwen's tokenizers cut a text before they look for pieces, from their tokenizer.json. */
const qwenPattern =
  "'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Types of tokens that stand for themselves in a text: control tokens, and those that a user defined. */
const wholeTokens = new Set<number>([pieceTypes.control, pieceTypes.userDefined]);

/**
 * Reads the tokenizer of a file; undefined if the file holds none.
 *
 * @param name how errors name the file
 * @throws FormatError if it is of a kind that is not supported, or damaged
 */
export function ggufTokenizer(metadata: Metadata, name: string): Tokenizer | undefined {
  const kind = metadata.get("tokenizer.ggml.model");
  if (kind === undefined) return undefined;
  const tokens = list(metadata, "tokenizer.ggml.tokens", name) as readonly string[];
  const types = list(metadata, "tokenizer.ggml.token_type", name) as readonly number[];
  const pad = metadata.get("tokenizer.ggml.padding_token_id");
  const padding = pad === undefined ? undefined : tokens[Number(pad)];
  if (kind === "gpt2") {
    const cut = metadata.get("tokenizer.ggml.pre");
    if (cut !== "qwen2") throw refused(name, `cuts texts as ${quote(cut ?? "default")} does`);
    const merges = list(metadata, "tokenizer.ggml.merges", name) as readonly string[];
    return loadTokenizer(byteLevel(tokens, types, merges), { padding });
  }
  if (kind !== "t5") throw refused(name, `is of the kind ${quote(kind)}`);
  const scores = list(metadata, "tokenizer.ggml.scores", name) as readonly number[];
  const pieces = tokens.map((piece, i) => ({ piece, score: scores[i]!, type: types[i]! }));
  const flag = (key: string) => metadata.get(`tokenizer.ggml.${key}`) !== "false";
  const model = {
    pieces,
    modelType: modelTypes.unigram,
    treatWhitespaceAsSuffix: false,
    byteFallback: false,
    precompiledCharsmap: metadata.has("tokenizer.ggml.precompiled_charsmap")
      ? Uint8Array.from(list(metadata, "tokenizer.ggml.precompiled_charsmap", name) as number[])
      : new Uint8Array(),
    addDummyPrefix: flag("add_space_prefix"),
    removeExtraWhitespaces: flag("remove_extra_whitespaces"),
    escapeWhitespaces: true,
  };
  return sentencePieceTokenizer(model, name, padding === undefined ? {} : { padding });
}

function refused(name: string, what: string): FormatError {
  return new FormatError(
    `The tokenizer in ${name} ${what}, which is not supported; give the folder of the model's tokenizer as --tokenizers (tokenizers).`,
  );
}

/** @throws FormatError if the metadata has no such list */
function list(metadata: Metadata, key: string, name: string): readonly unknown[] {
  const text = metadata.get(key);
  if (text?.startsWith("[")) return JSON.parse(text) as readonly unknown[];
  throw new FormatError(
    `${name} has a tokenizer without ${quote(key)}; download it again, or give the folder of the model's tokenizer as --tokenizers (tokenizers).`,
  );
}

/** A tokenizer.json of byte-level pairs. */
function byteLevel(
  tokens: readonly string[],
  types: readonly number[],
  merges: readonly string[],
): object {
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false };
  const isWhole = (id: number) => wholeTokens.has(types[id]!);
  return {
    version: "1.0",
    added_tokens: tokens.flatMap((content, id) =>
      isWhole(id)
        ? [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false }]
        : [],
    ),
    normalizer: { type: "NFC" },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: qwenPattern }, behavior: "Isolated", invert: false },
        { ...level, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { ...level, use_regex: false },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(
        tokens.flatMap((token, id) => (isWhole(id) ? [] : [[token, id] as const])),
      ),
      merges,
      byte_fallback: false,
    },
  };
}
