/** Text encoders of Stable Diffusion 3 on disk, as a person names them. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../../../engine/errors.ts";
import { clipTextIn } from "../../../models/text-encoders/clip-text.ts";
import { t5EncoderIn } from "../../../models/text-encoders/t5-encoder.ts";
import type { Closable } from "../../../weights/sources/closing.ts";
import { diskFolder } from "../../../weights/sources/folder-node.ts";
import { openSafetensorsFile } from "../../../weights/safetensors/file-node.ts";
import type { Weights } from "../../../weights/safetensors/safetensors.ts";
import { encoderFolder, openEncoderFolders, type SD3TextModels } from "./encoder-folders.ts";
import { encodersIn } from "./file.ts";
import { type SD3EncoderName, sd3EncoderTitles } from "./prompt.ts";

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
    const folder = diskFolder(path);
    const inFolders: SD3EncoderName[] = [];
    for (const name of wanted) {
      if (await folder.has(encoderFolder(name))) inFolders.push(name);
    }
    models = { ...models, ...given(await openEncoderFolders(folder, inFolders, opened)) };
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
