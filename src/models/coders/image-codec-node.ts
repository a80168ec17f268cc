/**
 * Opens autoencoders and VQGANs on disk: in diffusers' folder layout, as `patchwise train` writes them, or as
 * single files.
 */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import {
  autoencoderKLConfig,
  type AutoencoderKLConfig,
  type AutoencoderKLName,
} from "./autoencoder-kl-config.ts";
import {
  autoencoderCheckpointConfig,
  autoencoderIn,
  type OpenAutoencoder,
  openAutoencoderFolder,
} from "./autoencoder-kl-checkpoint.ts";
import type { OpenCodec } from "./image-codec.ts";
import { openVQGANFolder, vqganClass, vqganIn } from "./vqgan.ts";

const configFile = "config.json";

/** Subfolders of a model that hold its codec. */
export const codecFolders = { kl: "vae", vq: "vqgan" } as const;

/**
 * Opens an image codec.
 *
 * @param path a folder with config.json, a folder with such a folder as `vae` or `vqgan`, or a `.safetensors`
 *   file; without a config.json beside the file, the config is inferred from the shapes
 * @param wanted the published autoencoder whose scale a file without a config.json has, where several have as many channels
 * @throws UsageError if there is none; FormatError if its files are invalid
 */
export async function openCodec(path: string, wanted?: AutoencoderKLName): Promise<OpenCodec> {
  const status = await stat(path).catch(() => undefined);
  if (!status) {
    throw new UsageError(
      `There is no VAE ${path}; give a folder in diffusers' layout, or a .safetensors file.`,
    );
  }
  if (status.isDirectory()) {
    const folder = await folderOf(diskFolder(path));
    const isVQGAN = (await fieldsIn(folder, configFile)).text("_class_name", "") === vqganClass;
    return isVQGAN ? openVQGANFolder(folder) : openAutoencoderFolder(folder);
  }
  const config = await configBeside(diskFolder(dirname(path)));
  const file = await openSafetensorsFile(path);
  return closingOnFailure([file], async () =>
    [...file.entries.keys()].some((key) => key.startsWith("vquantizer."))
      ? vqganIn(file)
      : autoencoderIn(file, config ?? autoencoderCheckpointConfig(file, wanted)),
  );
}

/**
 * Opens an autoencoder, as `openCodec` does.
 *
 * @throws UsageError also if the path is a VQGAN
 */
export async function openAutoencoder(
  path: string,
  wanted?: AutoencoderKLName,
): Promise<OpenAutoencoder> {
  const opened = await openCodec(path, wanted);
  if (opened.kind === "kl") return opened;
  await opened.file.close();
  throw new UsageError(
    `${path} is a VQGAN, but continuous latents have to be decoded; give an autoencoder such as Stable Diffusion's.`,
  );
}

async function folderOf(folder: ModelFolder): Promise<ModelFolder> {
  for (const name of Object.values(codecFolders)) {
    if (await folder.has(`${name}/${configFile}`)) return folder.folder(name);
  }
  if (await folder.has(configFile)) return folder;
  throw new UsageError(
    `${folder.name} has no ${configFile}; give the folder of an autoencoder in diffusers' layout, or a .safetensors file.`,
  );
}

/** The autoencoder's config in a folder; undefined if there is none, or it belongs to another model. */
async function configBeside(folder: ModelFolder): Promise<AutoencoderKLConfig | undefined> {
  if (!(await folder.has(configFile))) return undefined;
  const fields = await fieldsIn(folder, configFile);
  return fields.optionalCount("latent_channels") === undefined
    ? undefined
    : autoencoderKLConfig(fields);
}
