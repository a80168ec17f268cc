/**
 * CLIP's tokenizer (Radford et al., 2021): byte-pair encoding (Sennrich et al., 2016) by the `vocab.json` and
 * `merges.txt` of transformers' CLIPTokenizer.
 */
import * as z from "zod";
import { FormatError, quote } from "../engine/errors.ts";
import { loadTokenizer, type Tokenizer, type TokenizerOptions } from "./tokenizer.ts";

const START = "<|startoftext|>";
const END = "<|endoftext|>";
/** Marks the last token of a word. */
const WORD_END = "</w>";

/** Matches contractions, runs of letters, single digits, and runs of other characters that are not spaces. */
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

const vocabularySchema = z.record(z.string(), z.int().min(0));

/**
 * Builds a tokenizer that puts start and end tokens around a text. It pads with the end token by default; CLIP-G pads with "!".
 *
 * @param vocabulary ids by token, from vocab.json
 * @param merges content of merges.txt: one pair per line, the most frequent first
 * @param name how errors name the folder of both files
 * @throws FormatError that names the file and its defect
 */
export function loadClipTokenizer(
  { vocabulary, merges }: { readonly vocabulary: unknown; readonly merges: string },
  name: string,
  { padding = END, added = [] }: TokenizerOptions = {},
): Tokenizer {
  const vocab = checkedVocabulary(vocabulary, name);
  const special = (content: string) => ({ id: vocab[content]!, content, special: true });
  const json = {
    version: "1.0",
    added_tokens: [special(START), special(END)],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: WORDS }, behavior: "Removed", invert: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: "RobertaProcessing",
      cls: [START, vocab[START]],
      sep: [END, vocab[END]],
    },
    decoder: null,
    model: {
      type: "BPE",
      vocab,
      merges: checkedMerges(merges, vocab, name),
      unk_token: END,
      end_of_word_suffix: WORD_END,
    },
  };
  return loadTokenizer(json, { padding, added });
}

function checkedVocabulary(value: unknown, name: string): Readonly<Record<string, number>> {
  const refused = (reason: string) =>
    new FormatError(
      `${name}: vocab.json ${reason}; use the one that was published with the model.`,
    );
  const vocab = vocabularySchema.safeParse(value);
  if (!vocab.success) throw refused("is not an object with an id for each token");
  const ids = new Set(Object.values(vocab.data));
  const count = Object.keys(vocab.data).length;
  if (ids.size < count || [...ids].some((id) => id >= count)) {
    throw refused(`does not number its ${count} pieces from 0 to ${count - 1}, each once`);
  }
  for (const piece of [START, END]) {
    if (!Object.hasOwn(vocab.data, piece)) throw refused(`has no piece ${quote(piece)}`);
  }
  return vocab.data;
}

function checkedMerges(
  text: string,
  vocab: Readonly<Record<string, number>>,
  name: string,
): [string, string][] {
  const pairs: [string, string][] = [];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line === "" || (i === 0 && line.startsWith("#version"))) continue;
    const [first, second, ...rest] = line.split(" ");
    const pair = first && second && rest.length === 0 ? ([first, second] as const) : undefined;
    if (!pair || ![...pair, pair.join("")].every((piece) => Object.hasOwn(vocab, piece))) {
      throw new FormatError(
        `${name}: line ${i + 1} of merges.txt is ${quote(line)}, which does not merge two tokens of vocab.json into a third; use both files of the same model.`,
      );
    }
    pairs.push([...pair]);
  }
  return pairs;
}
