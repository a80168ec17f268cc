/** Autoencoders and tokenizers on disk: in diffusers' folders, as `patchwise train` makes them, or as single files. */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { autoencoderKLConfig, type AutoencoderKLConfig } from "./autoencoder-kl-config.ts";
import { autoencoderIn, type OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";
import { openAutoencoderFolder } from "./autoencoder-kl-folder.ts";
import type { OpenCodec } from "./image-codec.ts";
import { openVQGANFolder, vqganClass, vqganIn } from "./vqgan-folder.ts";

const configFile = "config.json";

/** Folders within another that hold one. */
export const codecFolders = { kl: "vae", vq: "vqgan" } as const;

/**
 * Opens an autoencoder or a tokenizer.
 *
 * @param path a folder with config.json, one that holds such a folder as `vae` or `vqgan`, or a `.safetensors` file; an
 *   autoencoder's config is told from its shapes unless there is a config.json of one beside it
 * @throws UsageError when there is none; FormatError when its files are not sound
 */
export async function openCodec(path: string): Promise<OpenCodec> {
  const status = await stat(path).catch(() => undefined);
  if (!status) {
    throw new UsageError(
      `There is no VAE ${path}; give a folder in diffusers' layout, or a .safetensors file.`,
    );
  }
  if (status.isDirectory()) {
    const folder = await folderOf(diskFolder(path));
    const isTokenizer = (await fieldsIn(folder, configFile)).text("_class_name", "") === vqganClass;
    return isTokenizer ? openVQGANFolder(folder) : openAutoencoderFolder(folder);
  }
  const config = await configBeside(diskFolder(dirname(path)));
  const file = await openSafetensorsFile(path);
  return closingOnFailure([file], async () =>
    [...file.entries.keys()].some((key) => key.startsWith("vquantizer."))
      ? vqganIn(file)
      : autoencoderIn(file, config),
  );
}

/**
 * Opens an autoencoder, as `openCodec` does.
 *
 * @throws UsageError also when it is a tokenizer
 */
export async function openAutoencoder(path: string): Promise<OpenAutoencoder> {
  const opened = await openCodec(path);
  if (opened.kind === "kl") return opened;
  await opened.file.close();
  throw new UsageError(
    `${path} is a tokenizer, but latents of continuous numbers are to be decoded; give Stable Diffusion's autoencoder, or another of its kind.`,
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

/** The config of the autoencoder in a folder; undefined where there is none, or it is of something else. */
async function configBeside(folder: ModelFolder): Promise<AutoencoderKLConfig | undefined> {
  if (!(await folder.has(configFile))) return undefined;
  const fields = await fieldsIn(folder, configFile);
  return fields.optionalCount("latent_channels") === undefined
    ? undefined
    : autoencoderKLConfig(fields);
}
