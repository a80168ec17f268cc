/** The components of a folder in diffusers' layout. */
import { join } from "node:path";
import { diffusersScheduler } from "../diffusion/diffusers-schedulers.ts";
import { FormatError } from "../engine/errors.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import { exists, readFields } from "../weights/files-node.ts";
import { quote } from "../weights/json.ts";
import type { SamplingProcess } from "./image-model.ts";
import { schedulerProcess } from "./process.ts";

export interface Component {
  readonly folder: string;
  /** Of its config. */
  readonly fields: FieldReader;
}

/**
 * A model of a folder.
 *
 * @param family what its config must call itself: the class in diffusers, the type in transformers
 * @throws FormatError when it is missing, or of another family
 */
export async function component(path: string, name: string, family: string): Promise<Component> {
  const folder = join(path, name);
  const fields = await configOf(path, name, "config.json");
  const own = fields.text("_class_name", fields.text("model_type", family));
  if (own === family) return { folder, fields };
  throw new FormatError(
    `${fields.file} describes a ${own}, but the ${name} of ${path} must be a ${family}; download the whole folder again.`,
  );
}

/** How a folder's scheduler samples. */
export async function schedulerOf(path: string): Promise<SamplingProcess> {
  const fields = await configOf(path, "scheduler", "scheduler_config.json");
  const name = fields.text("_class_name");
  return schedulerProcess(name, diffusersScheduler(name, fields));
}

async function configOf(path: string, name: string, file: string): Promise<FieldReader> {
  const config = join(path, name, file);
  if (await exists(config)) return readFields(config);
  throw new FormatError(
    `${path} lacks its ${name}: there is no ${quote(`${name}/${file}`)}; download the whole folder.`,
  );
}
