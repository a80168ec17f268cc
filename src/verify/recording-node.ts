/**
 * Opens a recording in a folder: config.json, io.safetensors and, for some families, weights.safetensors and
 * grads.safetensors. Weights are the original state_dict under its own keys.
 */
import { readFile } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { FormatError, quote } from "../engine/errors.ts";
import { openSafetensorsFile } from "../weights/safetensors/file-node.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import { closeAll } from "../weights/sources/closing.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { system } from "../weights/sources/system-error-node.ts";
import { parseConfig, type RecordedConfig, type Recording } from "./recording.ts";

/**
 * Opens a folder for as long as `use` runs; tensors are read only when used.
 *
 * @throws FormatError if one of its files is missing or invalid
 */
export async function withRecording<T>(
  folder: string,
  use: (recording: Recording) => Promise<T>,
): Promise<T> {
  const opened: Weights[] = [];
  const open = async (path: string): Promise<Weights> => {
    const weights = await openSafetensorsFile(path);
    opened.push(weights);
    return weights;
  };
  const openIfThere = async (directory: string, file: string): Promise<Weights | undefined> =>
    (await exists(join(directory, file))) ? open(join(directory, file)) : undefined;

  try {
    const config = await readConfig(folder);
    const io = await open(join(folder, "io.safetensors"));
    const gradients = await openIfThere(folder, "grads.safetensors");
    const modelOf = async (path: string | undefined) => {
      const lender = path === undefined ? folder : sibling(folder, path);
      const weights = await openIfThere(lender, "weights.safetensors");
      if (!weights && path !== undefined) {
        throw new FormatError(
          `${join(folder, "config.json")} takes its weights from ${quote(path)}, but there is no ${join(lender, "weights.safetensors")}; put that recording beside it.`,
        );
      }
      const ownConfig = path === undefined ? config : await readConfig(lender);
      return weights && { config: ownConfig, weights };
    };
    const model = await modelOf(config.weightsFrom);
    const teacherFrom = config.fields["weights_teacher"];
    const teacher = typeof teacherFrom === "string" ? await modelOf(teacherFrom) : undefined;
    const openBeside = (file: string) => open(join(folder, basename(file)));
    const name = basename(resolve(folder));
    return await use({ name, config, io, model, teacher, gradients, openBeside });
  } finally {
    await closeAll(opened);
  }
}

async function readConfig(folder: string): Promise<RecordedConfig> {
  const path = join(folder, "config.json");
  const what = `read ${path}, which describes the recording`;
  return parseConfig(await system(what, readFile(path, "utf8"), FormatError), path);
}

/** A recording may refer only to folders beside it, and not to arbitrary paths. */
function sibling(folder: string, path: string): string {
  const target = resolve(folder, path);
  const parent = dirname(resolve(folder));
  const inside = relative(parent, target);
  if (isAbsolute(path) || isAbsolute(inside) || inside === "" || inside.split(sep)[0] === "..") {
    throw new FormatError(
      `${join(folder, "config.json")} takes its weights from ${quote(path)}; name a folder beside this one, such as "../dit".`,
    );
  }
  return target;
}
