/**
 * SentencePiece tokenizers such as T5's: a `.model` file with the probability of each piece, by which a text
 * is split into the most likely pieces.
 */
import { FormatError, quote } from "../engine/errors.ts";
import { charsmapRewrite, type Rewrite } from "./charsmap.ts";
import {
  decodeSentencePiece,
  modelTypes,
  pieceTypes,
  type SentencePieceProto,
} from "./sentencepiece-proto.ts";
import { loadTokenizer, type Tokenizer, type TokenizerOptions } from "./tokenizer.ts";

/** Stands for a space. */
const SPACE = "▁";
/** Ends each text, as in transformers. */
const END = "</s>";
const PADDING = "<pad>";
/** Tokens for gaps in a text, of which T5 has a hundred and no prompt has any. */
const SENTINEL = /^<extra_id_\d+>$/;
/** Score of a user-defined piece: higher than that of any way to split it, as in SentencePiece. */
const DEFINED = -0.1;

/**
 * Loads a "unigram" model (Kudo, 2018).
 *
 * @param bytes the content of the file
 * @param name how errors name the file
 * @throws FormatError if the file is no such model, or uses a feature that is not supported
 */
export function loadSentencePiece(
  bytes: Uint8Array,
  name: string,
  options: TokenizerOptions = {},
): Tokenizer {
  return sentencePieceTokenizer(decoded(bytes, name), name, options);
}

/**
 * The tokenizer of a "unigram" model.
 *
 * @param name how errors name its file
 * @throws FormatError if the model uses a feature that is not supported, or its table is damaged
 */
export function sentencePieceTokenizer(
  model: SentencePieceProto,
  name: string,
  { padding = PADDING, added = [] }: TokenizerOptions = {},
): Tokenizer {
  checkKind(model, name);
  const unknown = added.find(
    ({ content }) =>
      !SENTINEL.test(content) && !model.pieces.some(({ piece }) => piece === content),
  );
  if (unknown) {
    throw new FormatError(
      `${name} has no piece ${quote(unknown.content)}, which was added to its vocabulary; give a tokenizer.json in its place, as a fast tokenizer of transformers saves it.`,
    );
  }
  const rewrite = charsmapRewrite(model.precompiledCharsmap);
  if (!rewrite) {
    throw new FormatError(`${name} has a damaged normalization table; download it again.`);
  }
  return loadTokenizer(unigram(model, name, padding), { prepare: preparation(model, rewrite) });
}

function decoded(bytes: Uint8Array, name: string): SentencePieceProto {
  const refused = (reason: string, cause?: unknown) =>
    new FormatError(
      `${name} is not a SentencePiece model (${reason}); use the one that was published with the model.`,
      { cause },
    );
  let model: SentencePieceProto;
  try {
    model = decodeSentencePiece(bytes);
  } catch (error) {
    throw refused((error as Error).message, error);
  }
  const { pieces } = model;
  if (pieces.some(({ piece }) => piece === "")) throw refused("one of its pieces is empty");
  if (new Set(pieces.map(({ piece }) => piece)).size < pieces.length) {
    throw refused("it has a piece twice");
  }
  if (!pieces.some(({ type }) => type === pieceTypes.unknown)) {
    throw refused("it has no unknown piece");
  }
  return model;
}

function checkKind(model: SentencePieceProto, name: string): void {
  const unread = [
    model.modelType !== modelTypes.unigram && `uses another algorithm than "unigram"`,
    model.byteFallback && "falls back to bytes",
    model.treatWhitespaceAsSuffix && "puts spaces after words",
    !model.escapeWhitespaces && "does not escape spaces",
  ].find((reason) => reason !== false);
  if (unread === undefined) return;
  throw new FormatError(
    `${name} ${unread}, which is not supported; use a T5 model, or a tokenizer.json in its place.`,
  );
}

/** Returns what SentencePiece does to a text before splitting it. */
function preparation(model: SentencePieceProto, rewrite: Rewrite): Rewrite {
  const { pieces, addDummyPrefix, removeExtraWhitespaces: tidy } = model;
  const defined = pieces.filter(({ type }) => type === pieceTypes.userDefined);
  const names = defined.map(({ piece }) => piece);
  const rewritten = names.length === 0 ? rewrite : around(names, rewrite);
  return (text) => {
    if (text === "") return text;
    const plain = rewritten(text);
    const tidied = tidy ? plain.replaceAll(/ +/g, " ").replace(/^ /, "") : plain;
    const escaped = ((addDummyPrefix ? " " : "") + tidied).replaceAll(" ", SPACE);
    return tidy ? withoutLastSpaces(escaped) : escaped;
  };
}

function withoutLastSpaces(text: string): string {
  let end = text.length;
  while (text[end - 1] === SPACE) end--;
  return text.slice(0, end);
}

/** Rewrites what is between user-defined pieces, of which the longest is matched first. */
function around(kept: readonly string[], rewrite: Rewrite): Rewrite {
  const longest = kept.toSorted((a, b) => b.length - a.length);
  const pattern = longest.map((piece) => piece.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  const cut = new RegExp(`(${pattern.join("|")})`, "u");
  return (text) =>
    text
      .split(cut)
      .map((part, i) => (i % 2 === 0 ? rewrite(part) : part))
      .join("");
}

/** Converts the model to a tokenizer.json for normalized text. */
function unigram({ pieces }: SentencePieceProto, name: string, padding: string): object {
  const { normal, unknown, userDefined } = pieceTypes;
  const idOf = (wanted: string) => {
    const id = pieces.findIndex(({ piece }) => piece === wanted);
    if (id >= 0) return id;
    throw new FormatError(
      `${name} has no piece ${quote(wanted)}; use a T5 model, or a tokenizer.json in its place.`,
    );
  };
  const vocab = pieces.map(({ piece, score, type }, id): readonly [string, number] => {
    if (type === normal) return [piece, score];
    if (type === userDefined) return [piece, DEFINED];
    return [hidden(id), 0];
  });
  const end = vocab[idOf(END)]![0];
  return {
    version: "1.0",
    added_tokens: [],
    padding: { pad_id: idOf(padding) },
    normalizer: null,
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: end, type_id: 0 } }],
      pair: [],
      special_tokens: {},
    },
    decoder: null,
    model: {
      type: "Unigram",
      unk_id: pieces.findIndex(({ type }) => type === unknown),
      vocab,
    },
  };
}

/** A piece that occurs in no text: it begins with a lone surrogate. */
function hidden(id: number): string {
  return `\ud800${id}`;
}
