/** Converts text to token ids by a tokenizer.json in Hugging Face's format. */
import { Tokenizer as PieceTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { FormatError, quote } from "../engine/errors.ts";
import { charsmapRewrite } from "./charsmap.ts";

export interface EncodedText {
  /** [length], with padding after the text. */
  readonly ids: Int32Array;
  /** 1 for the text and 0 for padding, [length]. */
  readonly mask: Uint8Array;
  /** The truncated part of the text, from its first word that did not fit; "" if all of it did. */
  readonly lost: string;
}

export interface Tokenizer {
  /** The content of its tokenizer.json, with the tokens that were added; undefined for one of another kind. */
  readonly json?: object;
  /** All ids are smaller than this. */
  readonly size: number;
  /** Encodes a text as `length` tokens. Shorter texts are padded and longer ones truncated. */
  encode(text: string, length: number): EncodedText;
  /** The words of a text that are not in the vocabulary: those with a character it lacks, or spelt from pieces that mean nothing. */
  unknownWords(text: string): readonly string[];
  /** The number of words of a text, and of those among them with a character that the vocabulary lacks, which is lost. */
  countWords(text: string): { readonly all: number; readonly lost: number };
  /** The characters of a text that no piece holds, each once: they are lost, or spelt as bytes. A list of pieces with scores normalizes them. */
  unknownCharacters(text: string): readonly string[];
}

/** A token beside the vocabulary, by the names of tokenizer.json. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly single_word?: boolean;
  readonly normalized?: boolean;
  readonly special?: boolean;
}

export interface TokenizerOptions {
  /** Tokens that other files add to those of the file. */
  readonly added?: readonly AddedToken[] | undefined;
  /** The padding token; by default the one that the file gives. */
  readonly padding?: string | undefined;
}

/**
 * Loads a tokenizer.json.
 *
 * @throws FormatError if the JSON is no tokenizer.json or of an unknown kind, or lacks the padding token
 */
export function loadTokenizer(
  given: unknown,
  options: TokenizerOptions & {
    /** Rewrites each text before tokenization; by default as the file says. */
    readonly prepare?: (text: string) => string;
  } = {},
): Tokenizer {
  const whole = outline.safeParse(given);
  if (!whole.success) {
    const [issue] = whole.error.issues;
    throw refused(`${issue!.path.join(".") || "the whole"}: ${issue!.message}`);
  }
  const { json, rewrite } = withTable(withAdded(whole.data, options.added ?? []));
  const pieces = construct(json);
  const size = 1 + idsIn(json).reduce((a, b) => Math.max(a, b), -1);
  const padding = paddingId(json, pieces, options);
  const { prepare = rewrite } = options;
  const unknown = unknownId(json, pieces);
  const bytes = bytePieces(json, pieces);
  const isList = Array.isArray(json.model.vocab);
  const piecesOf = (text: string, how?: typeof bare): Pieces => {
    try {
      return pieces.encode(prepare(text), how);
    } catch (error) {
      throw refused((error as Error).message, error);
    }
  };
  const idsOf = (text: string, how?: typeof bare): number[] => {
    const { ids, tokens } = piecesOf(text, how);
    if (!bytes) return ids;
    const spelt = (token: string) => [...utf8.encode(token)].map((byte) => bytes[byte]!);
    return ids.flatMap((id, i) => (id === unknown ? spelt(tokens[i]!) : [id]));
  };
  const wordsIn = (text: string) => text.slice(0, LONGEST).match(wordPattern) ?? [];
  // Some faults of a file only show when it is used.
  idsOf("a");
  return {
    json: withAdded(whole.data, options.added ?? []),
    size,
    encode(text, length) {
      // Pieces have few letters, and the time and the stack that a text takes grow with it.
      const read = text.slice(0, Math.max(LONGEST, 64 * length));
      const all = idsOf(read);
      const fits = all.length <= length;
      const kept = fits ? all : shortened(all, idsOf(read, bare), length);
      const ids = new Int32Array(length).fill(padding);
      ids.set(kept);
      const mask = new Uint8Array(length).fill(1, 0, kept.length);
      return {
        ids,
        mask,
        lost: fits
          ? text.slice(read.length).trim()
          : lostPart(text, read.length, (part) => idsOf(part).length <= length),
      };
    },
    countWords(text) {
      const words = wordsIn(text);
      const lost = words.filter((word) => idsOf(word, bare).includes(unknown));
      return { all: words.length, lost: lost.length };
    },
    unknownWords(text) {
      return [...new Set(wordsIn(text))].filter((word) => {
        const { ids } = piecesOf(word, bare);
        return ids.includes(unknown) || (/^\p{L}+$/u.test(word) && isSpelt(word, ids.length));
      });
    },
    unknownCharacters(text) {
      const lacks = [...new Set(text)].flatMap((each) => {
        const { ids, tokens } = piecesOf(each, bare);
        if (!ids.includes(unknown)) return [];
        // Other kinds put the name of the unknown piece there.
        return isList ? tokens.filter((_, i) => ids[i] === unknown) : [each];
      });
      return [...new Set(lacks.join(""))];
    },
  };
}

const anObject = z.custom<object>(
  (value) => typeof value === "object" && value !== null,
  "no object",
);
const typed = z.looseObject({ type: z.string() });
const step = typed.nullish();

/** What is read of a tokenizer.json before the library reads the rest, which takes all of it for sound. */
const outline = z.looseObject({
  model: z.looseObject({
    vocab: anObject,
    unk_id: z.unknown().optional(),
    unk_token: z.unknown().optional(),
    byte_fallback: z.unknown().optional(),
  }),
  added_tokens: z.array(z.looseObject({ id: z.number(), content: z.string() })).nullish(),
  normalizer: z
    .looseObject({
      type: z.string(),
      precompiled_charsmap: z.unknown().optional(),
      normalizers: z.array(typed).optional(),
    })
    .nullish(),
  pre_tokenizer: step,
  post_processor: step,
  decoder: step,
  padding: z.looseObject({ pad_id: z.unknown().optional() }).nullish(),
});

type TokenizerJson = z.output<typeof outline>;

/** Words of alphabets, and single characters of scripts without spaces. */
const wordPattern =
  /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|[\p{L}\p{M}\p{N}'’-]+|[^\s\p{P}]/gu;

/** Returns true if a word is in pieces so short that they are letters rather than parts with a meaning. */
function isSpelt(word: string, pieces: number): boolean {
  return pieces > 2 && word.length / pieces < 2.5;
}

function unknownId({ model }: TokenizerJson, pieces: PieceTokenizer): number {
  if (typeof model.unk_id === "number") return model.unk_id;
  const { unk_token: token } = model;
  return (typeof token === "string" ? pieces.token_to_id(token) : undefined) ?? -1;
}

/**
 * The id of each byte, for a "unigram" model that spells in bytes what no piece holds; undefined for others. The library that
 * reads tokenizer.json does so itself for pairs of bytes, but not for this kind.
 *
 * @throws FormatError if it should spell in bytes, but lacks one
 */
function bytePieces(
  { model }: TokenizerJson,
  pieces: PieceTokenizer,
): readonly number[] | undefined {
  if (!model.byte_fallback || !Array.isArray(model.vocab)) return undefined;
  return Array.from({ length: 256 }, (_, byte) => {
    const id = pieces.token_to_id(bytePiece(byte));
    if (id === undefined) throw refused(`it has no piece ${bytePiece(byte)}`);
    return id;
  });
}

/** The piece of a byte, by SentencePiece's convention. */
export function bytePiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

const utf8 = new TextEncoder();

/** Letters that are read of any text, even if the tokens end before. */
const LONGEST = 4096;

const bare = { add_special_tokens: false };

/** The pieces of a text as they stand in it, and their ids. */
interface Pieces {
  readonly ids: number[];
  readonly tokens: string[];
}

/** A tokenizer.json with further tokens, where it does not have them itself. */
function withAdded(json: TokenizerJson, added: readonly AddedToken[]): TokenizerJson {
  const own = json.added_tokens ?? [];
  const further = added.filter(({ content }) => !own.some((token) => token.content === content));
  const all = [...own, ...further.map((token) => ({ ...token }))];
  return further.length === 0 ? json : { ...json, added_tokens: all };
}

/** Takes SentencePiece's table of replacements out of a tokenizer.json: the library that reads the rest only knows some of it. */
function withTable(json: TokenizerJson): {
  readonly json: TokenizerJson;
  readonly rewrite: (text: string) => string;
} {
  const same = { json, rewrite: (text: string) => text };
  const { normalizer } = json;
  const own = normalizer ? [normalizer] : [];
  const all = normalizer?.type === "Sequence" ? (normalizer.normalizers ?? []) : own;
  const at = all.findIndex(({ type }) => type === "Precompiled");
  if (at < 0) return same;
  const table = tableIn(all[at]!["precompiled_charsmap"]);
  const rewrite = at === 0 && table ? charsmapRewrite(table) : undefined;
  if (!rewrite) {
    throw new FormatError(
      "The precompiled table of this tokenizer.json is damaged, or not the first of its normalizers; use the one that was published with the model.",
    );
  }
  return {
    json: { ...json, normalizer: { type: "Sequence", normalizers: all.slice(1) } },
    rewrite,
  };
}

/** Bytes in base64; undefined for anything else. */
function tableIn(text: unknown): Uint8Array | undefined {
  try {
    return typeof text === "string"
      ? Uint8Array.from(atob(text), (each) => each.charCodeAt(0))
      : undefined;
  } catch {
    return undefined;
  }
}

/** More than any vocabulary has. It bounds the memory that a wrong id can cost. */
const MAX_SIZE = 2 ** 24;

function refused(reason: string, cause?: unknown): FormatError {
  return new FormatError(
    `This is not a tokenizer.json that Patchwise can read (${reason}); use the one that was published with the model.`,
    { cause },
  );
}

function construct(json: TokenizerJson): PieceTokenizer {
  const { regexes, others } = patternsIn(json);
  // The library passes over such a pattern, so the text would be split in another way.
  if (others.length > 0) {
    throw refused(
      `its pattern ${quote(JSON.stringify(others[0]))} is neither a Regex nor a String`,
    );
  }
  const endless = regexes.find(mayTakeForever);
  if (endless !== undefined) {
    throw refused(`its pattern ${quote(endless)} repeats what is repeated, which may take forever`);
  }
  try {
    const pieces = new PieceTokenizer(json, {});
    const wrong = idsIn(json).find((id) => !isId(id));
    if (wrong === undefined) return pieces;
    throw new Error(`it has the invalid id ${JSON.stringify(wrong)}`);
  } catch (error) {
    throw refused((error as Error).message, error);
  }
}

/** All regular expressions of a tokenizer.json, and patterns that are neither these nor plain texts. */
function patternsIn({ normalizer, pre_tokenizer, post_processor, decoder }: TokenizerJson): {
  readonly regexes: readonly string[];
  readonly others: readonly unknown[];
} {
  const regexes: string[] = [];
  const others: unknown[] = [];
  // JSON.stringify visits every value once.
  JSON.stringify([normalizer, pre_tokenizer, post_processor, decoder], (key, value: unknown) => {
    if (key === "Regex" && typeof value === "string") regexes.push(value);
    if (key === "pattern" && !isPattern(value)) others.push(value);
    return value;
  });
  return { regexes, others };
}

function isPattern(value: unknown): boolean {
  const { Regex: regex, String: text } = (value ?? {}) as { Regex?: unknown; String?: unknown };
  return typeof (regex ?? text) === "string";
}

/**
 * Whether a pattern repeats a group in which there is a repetition or a choice, such as (a+)+, for which matching can take time
 * that is exponential in the text. None of the published tokenizers does.
 */
function mayTakeForever(pattern: string): boolean {
  /** For each open group, whether its outside varied before it. */
  const open: boolean[] = [];
  let varies = false;
  let inner: boolean | undefined;
  for (const [part] of pattern.matchAll(patternParts)) {
    const group = inner;
    inner = undefined;
    if (part.startsWith("(")) {
      open.push(varies);
      varies = false;
    } else if (part === ")") {
      inner = varies;
      varies = (open.pop() ?? false) || varies;
    } else if (/^[*+]|^\{\d+,(?!\d*[01]\})/.test(part)) {
      if (group) return true;
      varies = true;
    } else if (part === "|" || /^[?{]/.test(part)) varies = true;
  }
  return false;
}

/** Escapes, classes, openings of groups, quantifiers with their laziness, and single characters. */
const patternParts =
  /\\[pPuxk]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!>]|<[=!]|<\w+>|[\w-]+[:)]))?|[*+?][?+]?|\{\d+(?:,\d*)?\}[?+]?|./gsu;

/** In a list, a token's position is its id. */
function idsIn({ model: { vocab }, added_tokens: added }: TokenizerJson): readonly number[] {
  const own = Array.isArray(vocab) ? vocab.map((_, id) => id) : (Object.values(vocab) as number[]);
  return [...own, ...(added ?? []).map(({ id }) => id)];
}

function isId(id: number): boolean {
  return Number.isInteger(id) && id >= 0 && id < MAX_SIZE;
}

/** The id of the requested padding token, or of the file's, or 0, which is masked anyway. */
function paddingId(
  { padding }: TokenizerJson,
  pieces: PieceTokenizer,
  { padding: wanted }: TokenizerOptions,
): number {
  if (wanted !== undefined) {
    const id = pieces.token_to_id(wanted);
    if (id !== undefined) return id;
    throw new FormatError(
      `The tokenizer pads with ${quote(wanted)}, which is not in its vocabulary; use all files of the same model.`,
    );
  }
  return typeof padding?.pad_id === "number" ? padding.pad_id : 0;
}

/**
 * Truncates the ids but keeps the special tokens before and after the text.
 *
 * @param content the ids without special tokens
 */
function shortened(all: readonly number[], content: readonly number[], length: number): number[] {
  const special = all.length - content.length;
  const before = Array.from({ length: special + 1 }, (_, i) => i).find((start) =>
    content.every((id, i) => all[start + i] === id),
  );
  if (before === undefined || special >= length) return all.slice(0, length);
  const room = length - special;
  return [
    ...all.slice(0, before),
    ...content.slice(0, room),
    ...all.slice(before + content.length),
  ];
}

/** Characters around the end of what fits in which words are looked for, since each segment holds a copy of the text. */
const WINDOW = 256;

/** Returns the words of a text from the first one that does not fit, which is among its first `most` characters. */
function lostPart(text: string, most: number, fits: (part: string) => boolean): string {
  // The longest beginning that fits is at least `low` and less than `high` characters long.
  let [low, high] = [0, most];
  while (high - low > WINDOW) {
    const middle = Math.floor((low + high) / 2);
    if (fits(text.slice(0, middle))) low = middle;
    else high = middle;
  }
  const from = Math.max(0, low - WINDOW);
  const part = text.slice(from, high + WINDOW);
  // Words are segmented by Intl, because Chinese and Japanese have no spaces.
  const words = [...new Intl.Segmenter("en", { granularity: "word" }).segment(part)];
  let [first, last] = [0, words.length - 1]; // The first word that does not fit is in this range.
  while (first < last) {
    const middle = Math.floor((first + last) / 2);
    const { index, segment } = words[middle]!;
    if (fits(text.slice(0, from + index + segment.length))) first = middle + 1;
    else last = middle;
  }
  return text.slice(from + words[first]!.index).trim();
}
