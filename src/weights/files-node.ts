/** Small helps with the files of a model's folder. */
import { readFile, stat } from "node:fs/promises";
import { FormatError } from "../engine/errors.ts";
import { type ConfigFields, type FieldReader, fieldReader } from "./config-fields.ts";
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
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FormatError(
      `${path} is not valid JSON (${(error as Error).message}); copy or download it again.`,
      { cause: error },
    );
  }
}

/** The fields of a config file. */
export async function readFields(path: string): Promise<FieldReader> {
  const content = await readJson(path);
  if (typeof content === "object" && content !== null && !Array.isArray(content)) {
    return fieldReader(path, content as ConfigFields);
  }
  throw new FormatError(`${path} holds no object; copy or download it again.`);
}

export interface Closable {
  close(): Promise<void>;
}

/** What `use` makes of open files; where it fails, they are closed, with those that it added. */
export async function closingOnFailure<T>(
  opened: Closable[],
  use: (opened: Closable[]) => Promise<T>,
): Promise<T> {
  try {
    return await use(opened);
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

export async function closeAll(opened: readonly Closable[]): Promise<void> {
  for (const each of opened) await each.close();
}
