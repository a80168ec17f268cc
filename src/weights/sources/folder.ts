/** A folder with the files of a model, on disk (`folder-node.ts`) or behind an address (`folder-url.ts`). */
import { FormatError } from "../../engine/errors.ts";
import { type ConfigFields, type FieldReader, fieldReader } from "../config-fields.ts";
import type { Weights } from "../safetensors/safetensors.ts";

export interface ModelFolder {
  /** How messages call it: a path, or an address. */
  readonly name: string;
  /** Its own name, without what leads there. */
  readonly basename: string;
  /** How messages call a file of it. */
  pathOf(file: string): string;
  has(file: string): Promise<boolean>;
  /** @throws PatchwiseError when it cannot be had */
  read(file: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Opens a `.safetensors` file, or the shards of a `.safetensors.index.json`. */
  weights(file: string): Promise<Weights>;
  folder(name: string): ModelFolder;
}

/** @throws FormatError when it cannot be had, or is not JSON */
export async function jsonIn(folder: ModelFolder, file: string): Promise<unknown> {
  return parsedJson(new TextDecoder().decode(await folder.read(file)), folder.pathOf(file));
}

/** The fields of a config file. */
export async function fieldsIn(folder: ModelFolder, file: string): Promise<FieldReader> {
  return fieldsOf(await jsonIn(folder, file), folder.pathOf(file));
}

/** @throws FormatError when it is not JSON */
export function parsedJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FormatError(
      `${path} is not valid JSON (${(error as Error).message}); copy or download it again.`,
      { cause: error },
    );
  }
}

/** @throws FormatError when it is no object */
export function fieldsOf(content: unknown, path: string): FieldReader {
  if (typeof content === "object" && content !== null && !Array.isArray(content)) {
    return fieldReader(path, content as ConfigFields);
  }
  throw new FormatError(`${path} holds no object; copy or download it again.`);
}
