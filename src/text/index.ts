/** Tokenizers: text to token ids. */
export { loadClipTokenizer } from "./clip-tokenizer.ts";
export { loadSentencePiece } from "./sentencepiece.ts";
export { type EncodedText, loadTokenizer, type Tokenizer } from "./tokenizer.ts";
