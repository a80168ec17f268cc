/** SentencePiece's .model files, and texts that are encoded with them. */
import { readFileSync } from "node:fs";
import { loadSentencePiece } from "../../../src/text/sentencepiece.ts";
import { bytes, lengthFields } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const fixture = new URL("../../../test/fixtures/sentencepiece/identity.model", import.meta.url);

export const open: OpenTarget = () => ({
  sound: [new Uint8Array(readFileSync(fixture))],
  mutations: [bytes, lengthFields],
  read(input) {
    const tokenizer = loadSentencePiece(input, "spiece.model", { padding: "<unk>" });
    tokenizer.encode("a red cat on the moon, 苹果", 16);
  },
});
