/** Puts a model together from its parts, wherever they were found. */
import type { OpenAutoencoder } from "../../models/coders/autoencoder-kl-checkpoint.ts";
import { familyOf } from "../../models/families.ts";
import { ggufTokenizer } from "../../text/gguf-tokenizer.ts";
import { hasTokenizer, tokenizerIn } from "../../text/tokenizer-folder.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import type { ImageModel } from "../image-model.ts";
import type { OpenModelOptions } from "./options.ts";
import type { SplitModel } from "./split-models.ts";
import { type OpenTextEncoders, prompted, wantedEncoders } from "./text-encoders.ts";

export interface GivenEncoders {
  readonly encoders: OpenTextEncoders;
  /** The single files among them, by the encoder's name. */
  readonly files: Readonly<Record<string, Weights>>;
}

/** What was found of a model. */
interface FoundParts {
  /** The path or the address of the network's file. */
  readonly path: string;
  /** The folder whose folders hold the parts; undefined if the file lies somewhere else. */
  readonly root: string | undefined;
  readonly parts: Pick<ImageModel, "network" | "weights" | "close">;
  readonly given: GivenEncoders;
  readonly decoder: OpenAutoencoder | undefined;
  /** Has the tokenizers' folders, or the files of a single one. */
  readonly tokenizers: ModelFolder;
}

/** The options of a model in parts. */
export function splitOptions({ optional }: SplitModel): readonly (keyof OpenModelOptions)[] {
  const own = ["vae", "textEncoders", "tokenizers", "promptTokens"] as const;
  return optional ? [...own, "without"] : own;
}

/** A model of these parts; its `missingParts` says what drawing needs, if something lacks. */
export async function assembled(
  row: SplitModel,
  { path, root, parts, given, decoder, tokenizers: folder }: FoundParts,
  options: OpenModelOptions,
): Promise<ImageModel> {
  const { network } = parts;
  const title = row.title ?? familyOf(network).title;
  const wanted = wantedEncoders(row.encoders, options, title);
  const file = path.replace(/^.*[/\\]/, "");
  const name = file.replace(/\.[^.]*$/, "");
  const model: ImageModel = { name, ...parts, ...row.drawing(file, network), decoder };
  const unread = wanted.filter((each) => !given.encoders[each]);
  const needsDecoder = row.files["vae"] !== undefined && !decoder;
  if (unread.length > 0 || needsDecoder) {
    const lacking = [
      ...unread.map(
        (each) => `the text encoder ${row.encoders[each]!.title} (${row.files[each]!})`,
      ),
      ...(needsDecoder ? [`the autoencoder (${row.files["vae"]!})`] : []),
    ];
    const [them, files] = lacking.length === 1 ? ["it", "the file"] : ["them", "the files"];
    const folders = [
      ...(unread.length > 0 ? ["text_encoders"] : []),
      ...(needsDecoder ? ["vae"] : []),
    ];
    const flags = [
      ...(unread.length > 0 ? ["--text-encoders (textEncoders)"] : []),
      ...(needsDecoder ? ["--vae (vae)"] : []),
    ];
    const place =
      root === undefined ? "" : `put ${files} into ${enumerated(folders)} of ${root}, or `;
    const without =
      row.optional && unread.length > 0
        ? `, or draw with --without ${unread.join(" ")} (without)`
        : "";
    const missingParts = `${path} is a ${title} that lacks ${enumerated(lacking)}; ${place}give ${them} as ${enumerated(flags)}${without}.`;
    return { ...model, missingParts };
  }
  const tokenizers = await tokenizersOf(row, given, folder);
  return typeof tokenizers === "string"
    ? { ...model, missingParts: `${path} ${tokenizers}` }
    : row.withEncoders(model, given.encoders, tokenizers, options);
}

/**
 * The tokenizer of each encoder: a folder of the same name as in diffusers' layout, or what a GGUF file of the encoder holds.
 *
 * @param folder has the tokenizers' folders, or the files of a single one
 * @returns a clause that says what is missing and how to give it, if something is
 */
async function tokenizersOf(
  { encoders: table, tokenizers: repository }: SplitModel,
  { encoders, files }: GivenEncoders,
  folder: ModelFolder,
): Promise<Readonly<Record<string, Tokenizer>> | string> {
  const found: Record<string, Tokenizer> = {};
  const missing: string[] = [];
  const all = Object.entries(table).filter(([name]) => encoders[name]);
  for (const [name, row] of all) {
    const own = files[name];
    const inside = folder.folder(row.tokenizer);
    const read = (await hasTokenizer(inside))
      ? await tokenizerIn(inside)
      : all.length === 1 && (await hasTokenizer(folder))
        ? await tokenizerIn(folder)
        : own && ggufTokenizer(own.metadata, own.name);
    if (read) found[name] = prompted(read, row);
    else missing.push(row.tokenizer);
  }
  if (missing.length === 0) return found;
  return `has no vocabularies, as no such file does: put ${enumerated(missing.map((name) => `the folder ${name}`))} of ${repository} on the Hub into ${folder.name}, or give a folder that has ${missing.length === 1 ? "it" : "them"} as --tokenizers (tokenizers).`;
}

/** Names as they are listed in a sentence. */
export function enumerated(names: readonly string[]): string {
  return names.length < 2
    ? names.join("")
    : `${names.slice(0, -1).join(", ")} and ${names.at(-1)!}`;
}
