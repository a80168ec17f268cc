/** Text encoders and tokenizers of Stable Diffusion 3 on disk. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../engine/errors.ts";
import { type ClipTextConfig, clipTextConfig, clipTextIn } from "../models/clip-text.ts";
import { t5EncoderConfig, type T5EncoderConfig, t5EncoderIn } from "../models/t5-encoder.ts";
import { openTokenizer } from "../text/index-node.ts";
import { diffusersWeights } from "../weights/diffusers-weights-node.ts";
import { type Closable, exists } from "../weights/files-node.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import type { Weights } from "../weights/safetensors.ts";
import { component } from "./diffusers-component-node.ts";
import { encodersIn } from "./sd3-file.ts";
import {
  type SD3EncoderName,
  sd3EncoderNames,
  type SD3Encoders,
  sd3EncoderTitles,
  type TextEncoder,
} from "./sd3-prompt.ts";

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
  path: string,
  wanted: readonly SD3EncoderName[],
  opened: Closable[],
): Promise<SD3TextModels> {
  const open = async (name: SD3EncoderName, family: string) => {
    const { folder, fields } = await component(path, folders[name][0], family);
    const file = await openSafetensorsFile(await diffusersWeights(folder, "model"));
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

/** Encoders in files of weights alone. */
export function textModels(found: Partial<Record<SD3EncoderName, Weights>>): SD3TextModels {
  const { "clip-l": l, "clip-g": g, t5 } = found;
  return {
    "clip-l": l && clipTextIn(l, "CLIP-L"),
    "clip-g": g && clipTextIn(g, "CLIP-G"),
    t5: t5 && t5EncoderIn(t5),
  };
}

/**
 * The encoders that a person names: files, folders of such files as Stability publishes them, or folders of diffusers.
 *
 * @throws UsageError when there are none, or one of them twice
 */
export async function openGivenEncoders(
  paths: readonly string[],
  wanted: readonly SD3EncoderName[],
  opened: Closable[],
): Promise<SD3TextModels> {
  const found = new Map<SD3EncoderName, Weights>();
  let models: SD3TextModels = {};
  for (const path of paths) {
    const status = await stat(path).catch(() => undefined);
    if (!status) {
      throw new UsageError(
        `There are no text encoders ${path}; give .safetensors files, or a folder that holds them.`,
      );
    }
    const inFolders: SD3EncoderName[] = [];
    for (const name of wanted) {
      if (await exists(join(path, folders[name][0]))) inFolders.push(name);
    }
    models = { ...models, ...given(await openEncoderFolders(path, inFolders, opened)) };
    const files = status.isDirectory() ? await weightFiles(path) : [path];
    let here = inFolders.length;
    for (const file of files) {
      const weights = await openSafetensorsFile(file);
      opened.push(weights);
      for (const [name, own] of Object.entries(encodersIn(weights)) as [
        SD3EncoderName,
        Weights,
      ][]) {
        here++;
        const other = found.get(name);
        if (other && isReadable(other) === isReadable(own)) {
          throw new UsageError(
            `Both ${other.name} and ${own.name} are a ${sd3EncoderTitles[name]}; give one of them as the text encoder.`,
          );
        }
        // Stability's folder also has a T5 of 8 bits a number, which cannot be computed with.
        if (!other || isReadable(own)) found.set(name, own);
      }
    }
    if (here > 0) continue;
    throw new UsageError(
      `${path} holds no text encoder of Stable Diffusion 3; give clip_l.safetensors, clip_g.safetensors and t5xxl_fp16.safetensors, a folder that holds them, or one in diffusers' layout.`,
    );
  }
  const read = wanted.flatMap((name) => {
    const weights = found.get(name);
    return weights ? [[name, weights] as const] : [];
  });
  return { ...models, ...given(textModels(Object.fromEntries(read))) };
}

/** Without what is undefined, which would overwrite. */
function given(models: SD3TextModels): SD3TextModels {
  return Object.fromEntries(Object.entries(models).filter(([, model]) => model !== undefined));
}

async function weightFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names
    .filter((name) => name.endsWith(".safetensors"))
    .toSorted()
    .map((name) => join(folder, name));
}

function isReadable({ entries }: Weights): boolean {
  return [...entries.values()].every(({ dtype }) => dtype !== null);
}

/** Encoders with the tokenizers of a folder that holds one for each. */
export async function withTokenizers(models: SD3TextModels, path: string): Promise<SD3Encoders> {
  const { "clip-l": l, "clip-g": g, t5 } = models;
  const read = (name: SD3EncoderName) => openTokenizer(join(path, folders[name][1]));
  return {
    "clip-l": l && { ...l, tokenizer: await read("clip-l") },
    "clip-g": g && { ...g, tokenizer: await read("clip-g") },
    t5: t5 && { ...t5, tokenizer: await read("t5") },
  };
}

/** Which tokenizers' folders a folder lacks, for these encoders. */
export async function missingTokenizers(models: SD3TextModels, path: string): Promise<string[]> {
  const missing: string[] = [];
  for (const name of sd3EncoderNames) {
    const [, folder] = folders[name];
    if (models[name] && !(await exists(join(path, folder)))) missing.push(folder);
  }
  return missing;
}
