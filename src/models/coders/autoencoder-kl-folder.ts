/** Opens Stable Diffusion's autoencoder in diffusers' folder layout. */
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { autoencoderKLConfig } from "./autoencoder-kl-config.ts";
import { autoencoderIn, type OpenAutoencoder } from "./autoencoder-kl-checkpoint.ts";

/** @throws FormatError if its files are invalid */
export async function openAutoencoderFolder(folder: ModelFolder): Promise<OpenAutoencoder> {
  const config = autoencoderKLConfig(await fieldsIn(folder, "config.json"));
  const file = await openDiffusersWeights(folder);
  return closingOnFailure([file], async () => autoencoderIn(file, config));
}
