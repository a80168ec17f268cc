/** Prompts as the turns of a conversation, as the language models that serve as text encoders expect them. */
import type { Tokenizer } from "./tokenizer.ts";

/** What stands before and behind a text. */
export interface ChatTemplate {
  readonly before: string;
  readonly after: string;
}

/**
 * Qwen3's: the turn of the user, and the beginning of the answer. Without `thinking` the answer begins with an empty block of
 * thoughts, as FLUX.2 [klein] was trained; Z-Image was trained without that block.
 */
export function qwen3Template(thinking: boolean): ChatTemplate {
  return {
    before: "<|im_start|>user\n",
    after: `<|im_end|>\n<|im_start|>assistant\n${thinking ? "" : "<think>\n\n</think>\n\n"}`,
  };
}

/** A tokenizer that puts each text into a template. A text that is too long loses its end, and the template's with it. */
export function chatTokenizer(tokenizer: Tokenizer, { before, after }: ChatTemplate): Tokenizer {
  return {
    size: tokenizer.size,
    unknownWords: (text) => tokenizer.unknownWords(text),
    countWords: (text) => tokenizer.countWords(text),
    unknownCharacters: (text) => tokenizer.unknownCharacters(text),
    encode(text, length) {
      const encoded = tokenizer.encode(before + text + after, length);
      const { lost } = encoded;
      // Where only the template's end was lost, so was nothing of the text.
      const own = after.trim().endsWith(lost) ? "" : lost.replace(after.trim(), "").trim();
      return { ...encoded, lost: own };
    },
  };
}
