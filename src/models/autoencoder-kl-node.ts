/** Stable Diffusion's autoencoder on disk, in diffusers' folder or as a single file under either naming. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { UsageError } from "../engine/errors.ts";
import { closingOnFailure } from "../weights/closing.ts";
import { fieldsIn, type ModelFolder } from "../weights/folder.ts";
import { diskFolder } from "../weights/folder-node.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { autoencoderKLConfig, type AutoencoderKLConfig } from "./autoencoder-kl.ts";
import { autoencoderIn, type OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";
import { openAutoencoderFolder } from "./autoencoder-kl-folder.ts";

const configFile = "config.json";

/**
 * Opens an autoencoder.
 *
 * @param path a folder with config.json, one that holds such a folder as `vae`, or a `.safetensors` file, whose config is
 *   told from its shapes unless there is a config.json of one beside it
 * @throws UsageError when there is none; FormatError when its files are not sound
 */
export async function openAutoencoder(path: string): Promise<OpenAutoencoder> {
  const status = await stat(path).catch(() => undefined);
  if (!status) {
    throw new UsageError(
      `There is no VAE ${path}; give a folder in diffusers' layout, or a .safetensors file.`,
    );
  }
  if (status.isDirectory()) return openAutoencoderFolder(await folderOf(diskFolder(path)));
  const config = await configBeside(diskFolder(dirname(path)));
  const file = await openSafetensorsFile(path);
  return closingOnFailure([file], async () => autoencoderIn(file, config));
}

async function folderOf(folder: ModelFolder): Promise<ModelFolder> {
  const own = (await folder.has("vae")) ? folder.folder("vae") : folder;
  if (await own.has(configFile)) return own;
  throw new UsageError(
    `${own.name} has no ${configFile}; give the folder of an autoencoder in diffusers' layout, or a .safetensors file.`,
  );
}

/** The config of the autoencoder in a folder; undefined where there is none, or it is of something else. */
async function configBeside(folder: ModelFolder): Promise<AutoencoderKLConfig | undefined> {
  if (!(await folder.has(configFile))) return undefined;
  const fields = await fieldsIn(folder, configFile);
  return fields.optionalCount("latent_channels") === undefined
    ? undefined
    : autoencoderKLConfig(fields);
}
