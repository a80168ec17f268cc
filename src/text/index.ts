/** Text to numbers, and back to what was lost of it. */
export { loadClipTokenizer } from "./clip-tokenizer.ts";
export { loadSentencePiece } from "./sentencepiece.ts";
export { type EncodedText, loadTokenizer, type Tokenizer } from "./tokenizer.ts";
