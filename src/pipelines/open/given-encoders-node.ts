/** Text encoders beside a single file: the files and folders that a user gives, and what is found in a folder of such files. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isFloat8 } from "../../engine/arrays/convert.ts";
import { UsageError } from "../../engine/errors.ts";
import { pick } from "../../engine/records.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { Closable } from "../../weights/sources/closing.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import { component } from "./diffusers.ts";
import { enumerated, type GivenEncoders } from "./split-parts.ts";
import {
  encodersOfWeights,
  encoderWeightsIn,
  openEncoderFolders,
  type OpenTextEncoders,
  type TextEncoderTable,
} from "./text-encoders.ts";

/** A model whose text encoders are given. */
interface EncodersWanted {
  /** How errors name the model. */
  readonly title: string;
  readonly table: TextEncoderTable;
  /** Names of the encoders to open. */
  readonly wanted: readonly string[];
  /** The files that people use for them, as messages name them. */
  readonly usual: readonly string[];
}

/**
 * Opens encoders by their paths: files, folders of such files, or folders in diffusers' layout.
 *
 * @param opened receives the files that are opened
 * @throws UsageError if a path has none, or one of them is given twice
 */
export async function openGivenEncoders(
  { title, table, wanted, usual }: EncodersWanted,
  paths: readonly string[],
  opened: Closable[],
): Promise<GivenEncoders> {
  const found: Record<string, Weights> = {};
  let inFolders: OpenTextEncoders = {};
  for (const path of paths) {
    const status = await stat(path).catch(() => undefined);
    if (!status) {
      throw new UsageError(
        `There are no text encoders ${path}; give .safetensors files, or a folder that holds them.`,
      );
    }
    const folder = diskFolder(path);
    const names: string[] = [];
    for (const name of wanted) {
      if (await folder.has(table[name]!.folder)) names.push(name);
    }
    const openComponent = (name: string, modelType: string) => component(folder, name, modelType);
    const here = await openEncoderFolders(table, names, openComponent, opened);
    inFolders = { ...inFolders, ...here };
    let count = names.length;
    for (const file of status.isDirectory() ? await weightFiles(path) : [path]) {
      const weights = await openSafetensorsFile(file);
      opened.push(weights);
      for (const [name, own] of Object.entries(encoderWeightsIn(table, weights))) {
        count++;
        addEncoder(table, found, name, own);
      }
    }
    if (count > 0) continue;
    throw new UsageError(
      `${path} holds no text encoder of ${title}; give ${enumerated(usual)}, a folder that holds them, or one in diffusers' layout.`,
    );
  }
  const files = pick(found, (name) => wanted.includes(name));
  return { encoders: { ...inFolders, ...encodersOfWeights(table, files) }, files };
}

/** @throws UsageError if there is another such encoder already */
function addEncoder(
  table: TextEncoderTable,
  found: Record<string, Weights>,
  name: string,
  own: Weights,
): void {
  const other = found[name];
  if (other && isFloat8Model(other) === isFloat8Model(own)) {
    throw new UsageError(
      `Both ${other.name} and ${own.name} are a ${table[name]!.title}; give one of them as the text encoder.`,
    );
  }
  // Stability's folder also has a T5 in 8-bit floats, which is less exact.
  if (!other || isFloat8Model(other)) found[name] = own;
}

function isFloat8Model({ entries }: Weights): boolean {
  return [...entries.values()].some(({ dtype }) => dtype !== null && isFloat8(dtype));
}

/** The files of weights in a folder, by name; none if there is no such folder. */
export async function weightFiles(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch(() => []);
  return names
    .filter((name) => /\.(safetensors|gguf)$/i.test(name))
    .toSorted()
    .map((name) => join(folder, name));
}
