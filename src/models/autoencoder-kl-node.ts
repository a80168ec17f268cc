/** Stable Diffusion's autoencoder on disk, in diffusers' folder or as a single file under either naming. */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { UsageError } from "../engine/errors.ts";
import { diffusersWeights } from "../weights/diffusers-weights-node.ts";
import { closingOnFailure, exists, readFields } from "../weights/files-node.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { autoencoderKLConfig } from "./autoencoder-kl.ts";
import { autoencoderIn, type OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";

export type { OpenAutoencoder };

/**
 * Opens an autoencoder.
 *
 * @param path a folder with config.json, one that holds such a folder as `vae`, or a `.safetensors` file, whose config is
 *   told from its shapes unless there is a config.json of one beside it
 * @throws UsageError when there is none; FormatError when its files are not sound
 */
export async function openAutoencoder(path: string): Promise<OpenAutoencoder> {
  const { weightsFile, configFile } = await locate(path);
  const file = await openSafetensorsFile(weightsFile);
  return closingOnFailure([file], async () => {
    const config = configFile ? autoencoderKLConfig(await readFields(configFile)) : undefined;
    return autoencoderIn(file, config);
  });
}

async function locate(path: string): Promise<{ weightsFile: string; configFile?: string }> {
  const status = await stat(path).catch(() => undefined);
  if (!status) {
    throw new UsageError(
      `There is no VAE ${path}; give a folder in diffusers' layout, or a .safetensors file.`,
    );
  }
  if (!status.isDirectory()) {
    const beside = join(dirname(path), "config.json");
    return (await describesVAE(beside))
      ? { weightsFile: path, configFile: beside }
      : { weightsFile: path };
  }
  const inside = join(path, "vae");
  const folder = (await exists(inside)) ? inside : path;
  const configFile = join(folder, "config.json");
  if (!(await exists(configFile))) {
    throw new UsageError(
      `${folder} has no config.json; give the folder of an autoencoder in diffusers' layout, or a .safetensors file.`,
    );
  }
  return { weightsFile: await diffusersWeights(folder), configFile };
}

async function describesVAE(configFile: string): Promise<boolean> {
  if (!(await exists(configFile))) return false;
  return (await readFields(configFile)).optionalCount("latent_channels") !== undefined;
}
