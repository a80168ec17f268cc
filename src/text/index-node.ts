/** Tokenizers on disk. */
export { openTokenizer } from "./tokenizer-node.ts";
