/** Opens the tokenizer of a model folder, in any form in which transformers saves it. */
import { z } from "zod";
import { FormatError } from "../engine/errors.ts";
import { jsonIn, type ModelFolder } from "../weights/sources/folder.ts";
import { loadClipTokenizer } from "./clip-tokenizer.ts";
import { loadSentencePiece } from "./sentencepiece.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const [whole, vocabulary, merges, model] = [
  "tokenizer.json",
  "vocab.json",
  "merges.txt",
  "spiece.model",
] as const;

/**
 * Opens the first form that exists. `tokenizer_config.json` or `special_tokens_map.json` gives the padding
 * token.
 *
 * @throws FormatError if there is none, or its files are invalid
 */
export async function tokenizerIn(folder: ModelFolder): Promise<Tokenizer> {
  const options = { padding: await paddingOf(folder) };
  if (await folder.has(whole)) return loadTokenizer(await jsonIn(folder, whole), options);
  if ((await folder.has(vocabulary)) && (await folder.has(merges))) {
    const text = new TextDecoder().decode(await folder.read(merges));
    const files = { vocabulary: await jsonIn(folder, vocabulary), merges: text };
    return loadClipTokenizer(files, folder.name, options);
  }
  if (await folder.has(model)) {
    return loadSentencePiece(await folder.read(model), folder.pathOf(model), options);
  }
  throw new FormatError(
    `${folder.name} holds no tokenizer: there is neither a tokenizer.json, nor a vocab.json with a merges.txt, nor a spiece.model; download the whole folder.`,
  );
}

const configSchema = z.object({
  pad_token: z.union([z.string(), z.object({ content: z.string() })]).nullish(),
});

/** The padding token of a tokenizer's config, which is a string or an object that describes it. */
async function paddingOf(folder: ModelFolder): Promise<string | undefined> {
  for (const name of ["tokenizer_config.json", "special_tokens_map.json"]) {
    if (!(await folder.has(name))) continue;
    const config = configSchema.safeParse(await jsonIn(folder, name));
    if (!config.success) {
      throw new FormatError(
        `${folder.pathOf(name)} has no padding token as a string in "pad_token"; download it again.`,
      );
    }
    const padding = config.data.pad_token ?? undefined;
    if (padding !== undefined) return typeof padding === "string" ? padding : padding.content;
  }
  return undefined;
}
