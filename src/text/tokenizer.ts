/** Text to the numbers of its pieces, by a tokenizer.json of Hugging Face's format. */
import { Tokenizer as PieceTokenizer } from "@huggingface/tokenizers";
import { FormatError } from "../engine/errors.ts";
import { quote } from "../engine/messages.ts";

export interface EncodedText {
  /** [length], padded behind the text. */
  readonly ids: Int32Array;
  /** [length], 1 for the text and 0 for padding. */
  readonly mask: Uint8Array;
  /** What did not fit, from the first word that is not whole; "" where all did. */
  readonly lost: string;
}

export interface Tokenizer {
  /** Ids are below it. */
  readonly size: number;
  /** Pieces of a text, `length` of them: what is missing is padded, what is too much is cut off and named. */
  encode(text: string, length: number): EncodedText;
}

export interface TokenizerOptions {
  /** The piece to pad with; what the file says unless given. */
  readonly padding?: string | undefined;
}

/**
 * @param options.prepare rewrites a text before it is cut
 * @throws FormatError when it is no tokenizer.json, or one of a kind that is not known, or has no such padding
 */
export function loadTokenizer(
  json: unknown,
  options: TokenizerOptions & { readonly prepare?: (text: string) => string } = {},
): Tokenizer {
  const pieces = construct(json);
  const size = 1 + idsIn(json as TokenizerJson).reduce((a, b) => Math.max(a, b), -1);
  const padding = paddingId(json, pieces, options);
  const { prepare = (text) => text } = options;
  const idsOf = (text: string) => pieces.encode(prepare(text)).ids;
  return {
    size,
    encode(text, length) {
      const all = idsOf(text);
      const fits = all.length <= length;
      const kept = fits ? all : shortened(all, pieces.encode(prepare(text), bare).ids, length);
      const ids = new Int32Array(length).fill(padding);
      ids.set(kept);
      const mask = new Uint8Array(length).fill(1, 0, kept.length);
      return {
        ids,
        mask,
        lost: fits ? "" : lostPart(text, (part) => idsOf(part).length <= length),
      };
    },
  };
}

const bare = { add_special_tokens: false };

interface TokenizerJson {
  readonly model: { readonly vocab: object };
  readonly added_tokens?: readonly { readonly id: number }[] | null;
  readonly padding?: { readonly pad_id?: unknown } | null;
}

/** More than any vocabulary has; what a wrong id could make of memory is bounded by it. */
const MAX_SIZE = 2 ** 24;

function construct(json: unknown): PieceTokenizer {
  const refused = (reason: string, cause?: unknown) =>
    new FormatError(
      `This is not a tokenizer.json that Patchwise can read (${reason}); take the one that was published with the model.`,
      { cause },
    );
  const model = (json as Partial<TokenizerJson> | null | undefined)?.model;
  if (typeof model?.vocab !== "object" || model.vocab === null) {
    throw refused("it has no model with a vocabulary");
  }
  try {
    const pieces = new PieceTokenizer(json, {});
    const wrong = idsIn(json as TokenizerJson).find((id) => !isId(id));
    if (wrong === undefined) return pieces;
    throw new Error(`it numbers a piece ${JSON.stringify(wrong)}`);
  } catch (error) {
    throw refused((error as Error).message, error);
  }
}

/** Lists have their ids by their places. */
function idsIn({ model: { vocab }, added_tokens: added }: TokenizerJson): readonly number[] {
  const own = Array.isArray(vocab) ? vocab.map((_, id) => id) : (Object.values(vocab) as number[]);
  return [...own, ...(added ?? []).map(({ id }) => id)];
}

function isId(id: number): boolean {
  return Number.isInteger(id) && id >= 0 && id < MAX_SIZE;
}

/** The id that is asked for, or that the file pads with, or 0: masked, it means nothing. */
function paddingId(
  json: unknown,
  pieces: PieceTokenizer,
  { padding: wanted }: TokenizerOptions,
): number {
  if (wanted !== undefined) {
    const id = pieces.token_to_id(wanted);
    if (id !== undefined) return id;
    throw new FormatError(
      `The tokenizer pads with ${quote(wanted)}, which is none of its pieces; give its files from one and the same model.`,
    );
  }
  const { padding } = json as TokenizerJson;
  return typeof padding?.pad_id === "number" ? padding.pad_id : 0;
}

/**
 * As many of the ids as fit, with the special tokens that stand before and behind the text.
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

/** The words of a text from the first with which it no longer fits. */
function lostPart(text: string, fits: (part: string) => boolean): string {
  // Not by spaces, which Chinese and Japanese do not have.
  const words = [...new Intl.Segmenter("en", { granularity: "word" }).segment(text)];
  let [low, high] = [0, words.length - 1]; // The first word too many is among these.
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const { index, segment } = words[middle]!;
    if (fits(text.slice(0, index + segment.length))) low = middle + 1;
    else high = middle;
  }
  return text.slice(words[low]!.index).trim();
}
