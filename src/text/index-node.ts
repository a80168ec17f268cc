/** Opens tokenizers on disk. */
import { diskFolder } from "../weights/sources/folder-node.ts";
import { tokenizerIn } from "./tokenizer-folder.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Opens a folder with `tokenizer.json`, with CLIP's `vocab.json` and `merges.txt`, or with SentencePiece's
 * `spiece.model`, in this order of priority. `tokenizer_config.json` or `special_tokens_map.json` gives the
 * padding token.
 *
 * @throws FormatError if there are no such files, or they are invalid
 */
export function openTokenizer(folder: string): Promise<Tokenizer> {
  return tokenizerIn(diskFolder(folder));
}
