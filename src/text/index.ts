/** Text to numbers, and back to what was lost of it. */
export { type EncodedText, loadTokenizer, type Tokenizer } from "./tokenizer.ts";
