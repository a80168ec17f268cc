/** A folder with the files of a model, on disk (`folder-node.ts`) or behind a URL (`folder-url.ts`). */
import { FormatError } from "../../engine/errors.ts";
import { type ConfigFields, type FieldReader, fieldReader } from "../config-fields.ts";
import { parsePythonJson } from "../python-json.ts";
import type { Weights } from "../safetensors/safetensors.ts";

export interface ModelFolder {
  /** How errors name the folder: a path or a URL. */
  readonly name: string;
  /** The last part of its path. */
  readonly basename: string;
  /** How errors name a file of the folder. */
  pathOf(file: string): string;
  has(file: string): Promise<boolean>;
  /** @throws PatchwiseError if the file cannot be read */
  read(file: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Opens a `.safetensors` file, or the shards of a `.safetensors.index.json`. */
  weights(file: string): Promise<Weights>;
  folder(name: string): ModelFolder;
}

/** @throws FormatError if the file cannot be read, or is not JSON */
export async function jsonIn(folder: ModelFolder, file: string): Promise<unknown> {
  return parsedJson(new TextDecoder().decode(await folder.read(file)), folder.pathOf(file));
}

/** Reads the fields of a config file. */
export async function fieldsIn(folder: ModelFolder, file: string): Promise<FieldReader> {
  return fieldsOf(await jsonIn(folder, file), folder.pathOf(file));
}

/** @throws FormatError if the text is not JSON */
export function parsedJson(text: string, path: string): unknown {
  try {
    return parsePythonJson(text);
  } catch (error) {
    throw new FormatError(
      `${path} is not valid JSON (${(error as Error).message}); copy or download it again.`,
      { cause: error },
    );
  }
}

/** @throws FormatError if the content is not an object */
export function fieldsOf(content: unknown, path: string): FieldReader {
  if (typeof content === "object" && content !== null && !Array.isArray(content)) {
    return fieldReader(path, content as ConfigFields);
  }
  throw new FormatError(`${path} is not a JSON object; copy or download it again.`);
}
