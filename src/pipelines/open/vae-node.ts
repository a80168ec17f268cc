/** An autoencoder on disk that stands in for a model's own. */
import { openAutoencoder } from "../../models/coders/image-codec-node.ts";
import type { GivenVAE } from "./vae.ts";

/** @param path as `openAutoencoder` takes it */
export function vaeAt(path: string | undefined): GivenVAE | undefined {
  return path === undefined ? undefined : { name: path, open: () => openAutoencoder(path) };
}
