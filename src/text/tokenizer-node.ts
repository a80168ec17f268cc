/** Tokenizers on disk, in whatever form transformers saved them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { FormatError } from "../engine/errors.ts";
import { exists, readJson } from "../weights/files-node.ts";
import { describeSystemError } from "../weights/system-error-node.ts";
import { loadClipTokenizer } from "./clip-tokenizer.ts";
import { loadSentencePiece } from "./sentencepiece.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

/**
 * Opens a folder with `tokenizer.json`, with CLIP's `vocab.json` and `merges.txt`, or with SentencePiece's `spiece.model`;
 * the first of them that is there counts. `tokenizer_config.json` or `special_tokens_map.json` says what it pads with.
 *
 * @throws FormatError when none is there, or its files are not sound
 */
export async function openTokenizer(folder: string): Promise<Tokenizer> {
  const [whole, vocabulary, merges, model] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
  ].map((name) => join(folder, name)) as [string, string, string, string];
  const options = { padding: await paddingOf(folder) };
  if (await exists(whole)) return loadTokenizer(await readJson(whole), options);
  if ((await exists(vocabulary)) && (await exists(merges))) {
    const text = new TextDecoder().decode(await read(merges));
    const files = { vocabulary: await readJson(vocabulary), merges: text };
    return loadClipTokenizer(files, folder, options);
  }
  if (await exists(model)) return loadSentencePiece(await read(model), model, options);
  throw new FormatError(
    `${folder} holds no tokenizer: there is neither a tokenizer.json, nor a vocab.json with a merges.txt, nor a spiece.model; download the whole folder.`,
  );
}

const configSchema = z.object({
  pad_token: z.union([z.string(), z.object({ content: z.string() })]).nullish(),
});

/** The piece that a tokenizer's config pads with, given as a text or as an object that describes it. */
async function paddingOf(folder: string): Promise<string | undefined> {
  for (const name of ["tokenizer_config.json", "special_tokens_map.json"]) {
    const file = join(folder, name);
    if (!(await exists(file))) continue;
    const config = configSchema.safeParse(await readJson(file));
    if (!config.success) {
      throw new FormatError(
        `${file} does not say in "pad_token", as a text, what piece it pads with; download it again.`,
      );
    }
    const padding = config.data.pad_token ?? undefined;
    if (padding !== undefined) return typeof padding === "string" ? padding : padding.content;
  }
  return undefined;
}

async function read(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new FormatError(`Cannot read ${file}: ${describeSystemError(error)}.`, { cause: error });
  }
}
