/** Text encoders and tokenizers of Stable Diffusion 3 in diffusers' layout: a folder each. */
import {
  type ClipTextConfig,
  clipTextConfig,
  clipTextIn,
} from "../../../models/text-encoders/clip-text.ts";
import {
  t5EncoderConfig,
  type T5EncoderConfig,
  t5EncoderIn,
} from "../../../models/text-encoders/t5-encoder.ts";
import { tokenizerIn } from "../../../text/tokenizer-folder.ts";
import type { Closable } from "../../../weights/sources/closing.ts";
import { openDiffusersWeights } from "../../../weights/diffusers-weights.ts";
import type { ModelFolder } from "../../../weights/sources/folder.ts";
import { component } from "../diffusers-component.ts";
import {
  type SD3EncoderName,
  sd3EncoderNames,
  type SD3Encoders,
  type TextEncoder,
} from "./prompt.ts";

type Untold<Config> = Omit<TextEncoder<Config>, "tokenizer">;

/** Text encoders that still need their tokenizers. */
export interface SD3TextModels {
  readonly "clip-l"?: Untold<ClipTextConfig> | undefined;
  readonly "clip-g"?: Untold<ClipTextConfig> | undefined;
  readonly t5?: Untold<T5EncoderConfig> | undefined;
}

/** What diffusers calls the folders of an encoder and its tokenizer. */
const folders: {
  readonly [N in SD3EncoderName]: readonly [encoder: string, tokenizer: string];
} = {
  "clip-l": ["text_encoder", "tokenizer"],
  "clip-g": ["text_encoder_2", "tokenizer_2"],
  t5: ["text_encoder_3", "tokenizer_3"],
};

/** What diffusers calls an encoder's folder. */
export function encoderFolder(name: SD3EncoderName): string {
  return folders[name][0];
}

/**
 * The encoders in the folders of diffusers.
 *
 * @param opened where the files go that were opened
 * @throws FormatError when one is missing, or of another family
 */
export async function openEncoderFolders(
  whole: ModelFolder,
  wanted: readonly SD3EncoderName[],
  opened: Closable[],
): Promise<SD3TextModels> {
  const open = async (name: SD3EncoderName, family: string) => {
    const { folder, fields } = await component(whole, folders[name][0], family);
    const file = await openDiffusersWeights(folder, "model");
    opened.push(file);
    return { file, fields };
  };
  const clip = async (name: "clip-l" | "clip-g") => {
    if (!wanted.includes(name)) return undefined;
    const { file, fields } = await open(name, "clip_text_model");
    return clipTextIn(file, clipTextConfig(fields));
  };
  const t5 = async () => {
    if (!wanted.includes("t5")) return undefined;
    const { file, fields } = await open("t5", "t5");
    return t5EncoderIn(file, t5EncoderConfig(fields));
  };
  return { "clip-l": await clip("clip-l"), "clip-g": await clip("clip-g"), t5: await t5() };
}

/** Encoders with the tokenizers of a folder that holds one for each. */
export async function withTokenizers(
  models: SD3TextModels,
  whole: ModelFolder,
): Promise<SD3Encoders> {
  const { "clip-l": l, "clip-g": g, t5 } = models;
  const read = (name: SD3EncoderName) => tokenizerIn(whole.folder(folders[name][1]));
  return {
    "clip-l": l && { ...l, tokenizer: await read("clip-l") },
    "clip-g": g && { ...g, tokenizer: await read("clip-g") },
    t5: t5 && { ...t5, tokenizer: await read("t5") },
  };
}

/** Which tokenizers' folders a folder lacks, for these encoders. */
export async function missingTokenizers(
  models: SD3TextModels,
  whole: ModelFolder,
): Promise<string[]> {
  const missing: string[] = [];
  for (const name of sd3EncoderNames) {
    const [, folder] = folders[name];
    if (models[name] && !(await whole.has(folder))) missing.push(folder);
  }
  return missing;
}
