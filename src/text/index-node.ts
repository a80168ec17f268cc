/** Tokenizers on disk. */
import { diskFolder } from "../weights/sources/folder-node.ts";
import { tokenizerIn } from "./tokenizer-folder.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Opens a folder with `tokenizer.json`, with CLIP's `vocab.json` and `merges.txt`, or with SentencePiece's `spiece.model`;
 * the first of them that is there counts. `tokenizer_config.json` or `special_tokens_map.json` says what it pads with.
 *
 * @throws FormatError when none is there, or its files are not sound
 */
export function openTokenizer(folder: string): Promise<Tokenizer> {
  return tokenizerIn(diskFolder(folder));
}
