/** Model folders and JSON files on disk. */
import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { FormatError } from "../../engine/errors.ts";
import { type ModelFolder, fieldsOf, parsedJson } from "./folder.ts";
import { openSafetensorsFile } from "../safetensors/file-node.ts";
import { readRegularFile } from "./read-node.ts";
import { system } from "./system-error-node.ts";
import { type FieldReader } from "../config-fields.ts";

export function diskFolder(path: string): ModelFolder {
  const pathOf = (file: string) => join(path, file);
  return {
    name: path,
    basename: basename(resolve(path)),
    pathOf,
    has: (file) => exists(pathOf(file)),
    read: (file) => system(`read ${pathOf(file)}`, readRegularFile(pathOf(file)), FormatError),
    weights: (file) => openSafetensorsFile(pathOf(file)),
    folder: (name) => diskFolder(pathOf(name)),
  };
}

export function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** @throws FormatError if the file cannot be read, or is not JSON */
export async function readJson(path: string): Promise<unknown> {
  const bytes = await system(`read ${path}`, readRegularFile(path), FormatError);
  return parsedJson(bytes.toString("utf8"), path);
}

/** Reads the fields of a config file. */
export async function readFields(path: string): Promise<FieldReader> {
  return fieldsOf(await readJson(path), path);
}
