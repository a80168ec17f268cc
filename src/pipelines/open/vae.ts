/** The autoencoder that a model of latents is drawn with. */
import { FormatError } from "../../engine/errors.ts";
import type { OpenAutoencoder } from "../../models/coders/autoencoder-kl-checkpoint.ts";
import { openAutoencoderFolder } from "../../models/coders/autoencoder-kl-folder.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import { component } from "./diffusers-component.ts";

/** An autoencoder that stands in for a model's own. */
export interface GivenVAE {
  readonly name: string;
  open(): Promise<OpenAutoencoder>;
}

/**
 * Opens an autoencoder for latents of so many channels.
 *
 * @throws what opening throws; FormatError when it is of other latents
 */
export async function openVAE(vae: GivenVAE, channels: number): Promise<OpenAutoencoder> {
  const opened = await vae.open();
  return closingOnFailure([opened.file], async () => {
    const { latentChannels } = opened.config;
    if (latentChannels === channels) return opened;
    throw new FormatError(
      `${vae.name} decodes latents of ${latentChannels} channels, but the model draws ${channels}; give the autoencoder that the model was trained with.`,
    );
  });
}

/** The autoencoder of a folder in diffusers' layout. */
export async function vaeOf(whole: ModelFolder): Promise<GivenVAE> {
  const { folder } = await component(whole, "vae", "AutoencoderKL");
  return { name: folder.name, open: () => openAutoencoderFolder(folder) };
}
