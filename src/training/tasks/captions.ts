/** What a network cannot read of the captions that it is trained on. */
import { counted, quote, UsageError } from "../../engine/errors.ts";
import type { NetworkConfig } from "../../models/network.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { DenoiserConfig } from "../config/config.ts";
import type { DataSource } from "../loop.ts";

/**
 * Sentences about captions that are cut off, and about words that the vocabulary lacks.
 *
 * @throws UsageError when the vocabulary lacks more than half of the words, unless `training.unknownWords` keeps them
 */
export function captionWarnings(
  { survey }: Pick<DataSource, "survey">,
  tokenizer: Tokenizer,
  network: NetworkConfig,
  training: Pick<DenoiserConfig["training"], "unknownWords">,
): readonly string[] {
  const captions = survey?.captions ?? [];
  return [
    ...cutCaptions(captions, tokenizer, network),
    ...lostWords(captions, tokenizer, training),
  ];
}

/** A sentence if captions are longer than what the network reads of them. */
function cutCaptions(
  captions: readonly string[],
  tokenizer: Tokenizer,
  { prompt }: NetworkConfig,
): readonly string[] {
  if (!prompt) return [];
  const cut = captions.filter((caption) => tokenizer.encode(caption, prompt.length).lost !== "");
  if (cut.length === 0) return [];
  return [
    `${cut.length} of ${counted(captions.length, "caption")} ${cut.length === 1 ? "is" : "are"} longer than the ${prompt.length} tokens of model.prompt.length, and ${cut.length === 1 ? "is" : "are"} cut off (the first is ${quote(cut[0]!)}).`,
  ];
}

/** The share of lost words from which on captions say too little to learn from. */
const MOST_LOST = 1 / 2;

/** A sentence if words of the captions are not in the vocabulary, so that they all are the same to the network. */
function lostWords(
  captions: readonly string[],
  tokenizer: Tokenizer,
  { unknownWords }: Pick<DenoiserConfig["training"], "unknownWords">,
): readonly string[] {
  const counts = captions.map((caption) => tokenizer.countWords(caption));
  const all = counts.reduce((sum, count) => sum + count.all, 0);
  const lost = counts.reduce((sum, count) => sum + count.lost, 0);
  if (lost === 0) return [];
  const first = captions[counts.findIndex((count) => count.lost > 0)]!;
  const share = `${((100 * lost) / all).toFixed(lost > all / 10 ? 0 : 1)} % of the words of the captions have characters that the vocabulary lacks, and are all the same to the network (the first such caption is ${quote(first)})`;
  if (lost <= MOST_LOST * all || unknownWords === "keep") return [`${share}.`];
  throw new UsageError(
    `${share}; translate the captions, give a vocabulary of their language as model.prompt.words, or set training.unknownWords to keep.`,
  );
}
