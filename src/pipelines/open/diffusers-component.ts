/** The components of a folder in diffusers' layout. */
import { diffusersScheduler } from "../../diffusion/diffusers/schedulers.ts";
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { quote } from "../../engine/messages.ts";
import type { SamplingProcess } from "../image-model.ts";
import { schedulerProcess } from "../process.ts";

export interface Component {
  readonly folder: ModelFolder;
  /** Of its config. */
  readonly fields: FieldReader;
}

/**
 * A model of a folder.
 *
 * @param family what its config must call itself: the class in diffusers, the type in transformers
 * @throws FormatError when it is missing, or of another family
 */
export async function component(
  whole: ModelFolder,
  name: string,
  family: string,
): Promise<Component> {
  const fields = await configOf(whole, name, "config.json");
  const own = fields.text("_class_name", fields.text("model_type", family));
  if (own === family) return { folder: whole.folder(name), fields };
  throw new FormatError(
    `${fields.file} describes a ${own}, but the ${name} of ${whole.name} must be a ${family}; download the whole folder again.`,
  );
}

/** How a folder's scheduler samples. */
export async function schedulerOf(whole: ModelFolder): Promise<SamplingProcess> {
  const fields = await configOf(whole, "scheduler", "scheduler_config.json");
  const name = fields.text("_class_name");
  return schedulerProcess(name, diffusersScheduler(name, fields));
}

async function configOf(whole: ModelFolder, name: string, file: string): Promise<FieldReader> {
  const folder = whole.folder(name);
  if (await folder.has(file)) return fieldsIn(folder, file);
  throw new FormatError(
    `${whole.name} lacks its ${name}: there is no ${quote(`${name}/${file}`)}; download the whole folder.`,
  );
}
