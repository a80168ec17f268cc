/** Tokenizers: text to token ids. */
export { loadClipTokenizer } from "./clip-tokenizer.ts";
export { loadSentencePiece } from "./sentencepiece.ts";
export {
  type EncodedText,
  loadTokenizer,
  type Tokenizer,
  type AddedToken,
  type TokenizerOptions,
} from "./tokenizer.ts";
