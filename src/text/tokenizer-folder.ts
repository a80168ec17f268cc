/** Opens the tokenizer of a model folder, in any form in which transformers saves it. */
import * as z from "zod";
import { FormatError } from "../engine/errors.ts";
import { jsonIn, type ModelFolder } from "../weights/sources/folder.ts";
import { loadClipTokenizer } from "./clip-tokenizer.ts";
import { loadSentencePiece } from "./sentencepiece.ts";
import { type AddedToken, loadTokenizer, type Tokenizer } from "./tokenizer.ts";

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
  const options = { padding: await paddingOf(folder), added: await addedTokens(folder) };
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

/** Returns true if a folder has a tokenizer in one of these forms. */
export async function hasTokenizer(folder: ModelFolder): Promise<boolean> {
  for (const file of [whole, vocabulary, model]) if (await folder.has(file)) return true;
  return false;
}

const addedSchema = z.object({
  content: z.string().min(1),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.boolean().default(false),
  normalized: z.boolean().default(true),
  special: z.boolean().default(false),
});
const tokenId = z.int().min(0);
const decoderSchema = z.object({
  added_tokens_decoder: z.record(z.string().regex(/^\d+$/), addedSchema).nullish(),
});

/** Tokens that were added to a vocabulary, as by textual inversion, in the two files in which transformers saves them. */
async function addedTokens(folder: ModelFolder): Promise<readonly AddedToken[]> {
  const checked = async <T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> => {
    if (!(await folder.has(file))) return undefined;
    const content = schema.safeParse(await jsonIn(folder, file));
    if (content.success) return content.data;
    throw new FormatError(
      `${folder.pathOf(file)} has tokens that are not described as transformers does (${z.prettifyError(content.error).replaceAll(/\s+/g, " ")}); download it again.`,
    );
  };
  const config = await checked("tokenizer_config.json", decoderSchema);
  const described = Object.entries(config?.added_tokens_decoder ?? {}).map(([key, token]) => ({
    id: Number(key),
    ...token,
  }));
  const plain = (await checked("added_tokens.json", z.record(z.string().min(1), tokenId))) ?? {};
  const others = Object.entries(plain)
    .filter(([content]) => !described.some((token) => token.content === content))
    .map(([content, own]) => ({ id: own, ...addedSchema.parse({ content }) }));
  return [...described, ...others];
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
