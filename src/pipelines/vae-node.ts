/** The autoencoder that a model of latents is drawn with. */
import { FormatError } from "../engine/errors.ts";
import { type OpenAutoencoder, openAutoencoder } from "../models/autoencoder-kl-node.ts";
import { closingOnFailure } from "../weights/files-node.ts";

/**
 * Opens an autoencoder for latents of so many channels.
 *
 * @throws as `openAutoencoder`; FormatError also when it is of other latents
 */
export async function openVAE(path: string, channels: number): Promise<OpenAutoencoder> {
  const opened = await openAutoencoder(path);
  return closingOnFailure([opened.file], async () => {
    const { latentChannels } = opened.config;
    if (latentChannels === channels) return opened;
    throw new FormatError(
      `${path} decodes latents of ${latentChannels} channels, but the model draws ${channels}; give the autoencoder that the model was trained with.`,
    );
  });
}
