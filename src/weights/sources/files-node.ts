/** Small helps with the files of a model. */
import { readFile, stat } from "node:fs/promises";
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../config-fields.ts";
import { fieldsOf, parsedJson } from "./folder.ts";
import { describeSystemError } from "./system-error-node.ts";

export function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** @throws FormatError when it cannot be read, or is not JSON */
export async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new FormatError(`Cannot read ${path}: ${describeSystemError(error)}.`, { cause: error });
  });
  return parsedJson(text, path);
}

/** The fields of a config file. */
export async function readFields(path: string): Promise<FieldReader> {
  return fieldsOf(await readJson(path), path);
}
