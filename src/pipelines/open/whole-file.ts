/** Files of a whole model, as ComfyUI saves its checkpoints: the network, and what else there is, each under a prefix. */
import { FormatError } from "../../engine/errors.ts";
import { pick } from "../../engine/records.ts";
import {
  autoencoderCheckpointConfig,
  autoencoderIn,
  type OpenAutoencoder,
} from "../../models/coders/autoencoder-kl-checkpoint.ts";
import { codecShape } from "../../models/coders/image-codec.ts";
import { familyOf } from "../../models/families.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { weightsUnder, weightsWhere } from "../../weights/views.ts";
import type { ImageModel } from "../image-model.ts";
import { unwrapped } from "./published-checkpoint.ts";
import type { GivenEncoders } from "./split-parts.ts";
import { encodersOfWeights, encoderWeightsIn, type TextEncoderTable } from "./text-encoders.ts";

const networkPrefix = "model.diffusion_model.";
/** ComfyUI's prefix of the autoencoder of FLUX, and that of Stable Diffusion. */
const autoencoderPrefixes = ["vae.", "first_stage_model."];

function has({ entries }: Weights, prefix: string): boolean {
  return [...entries.keys()].some((name) => name.startsWith(prefix));
}

/** Prefixes of the names of the other parts' tensors. */
const otherPrefixes = [...autoencoderPrefixes, "text_encoders."];

/** The network of a file, which may hold other parts of the model, too. Closing it closes the file. */
export function networkIn(file: Weights): Weights {
  if (has(file, networkPrefix)) return unwrapped(weightsUnder(file, networkPrefix));
  const isOther = (name: string) => otherPrefixes.some((prefix) => name.startsWith(prefix));
  const names = [...file.entries.keys()];
  if (!names.some(isOther) || names.every(isOther)) return file;
  return unwrapped(weightsWhere(file, (name) => !isOther(name)));
}

/** Returns true if a file holds other parts of a model besides the network. */
function isWhole(file: Weights): boolean {
  return [networkPrefix, ...otherPrefixes].some((prefix) => has(file, prefix));
}

/**
 * The text encoders that a file of a whole model holds.
 *
 * @param wanted names of those that count
 */
export function encodersInside(
  table: TextEncoderTable,
  wanted: readonly string[],
  file: Weights,
): GivenEncoders {
  const all = isWhole(file) ? encoderWeightsIn(table, file) : {};
  const files = pick(all, (name) => wanted.includes(name));
  return { encoders: encodersOfWeights(table, files), files };
}

/** The encoders of both, those of the second where both have one. */
export function joinedEncoders(first: GivenEncoders, second: GivenEncoders): GivenEncoders {
  const kept = (name: string) => !(name in second.encoders);
  return {
    encoders: { ...first.encoders, ...second.encoders },
    files: { ...pick(first.files, kept), ...second.files },
  };
}

/**
 * The autoencoder that a file of a whole model holds; undefined if it has none.
 *
 * @throws FormatError if it decodes other latents than the network draws
 */
export function autoencoderInside(
  file: Weights,
  network: ImageModel["network"],
): OpenAutoencoder | undefined {
  const prefix = autoencoderPrefixes.find((each) => has(file, each));
  if (prefix === undefined) return undefined;
  const own = weightsUnder(file, prefix);
  const wanted = familyOf(network).autoencoder;
  const opened = autoencoderIn(own, autoencoderCheckpointConfig(own, wanted));
  const { latents } = codecShape(opened);
  if (latents === network.channels) return opened;
  throw new FormatError(
    `${file.name} holds an autoencoder whose latents have ${latents} channels, but its network draws ${network.channels}; give the one that the model was trained with as --vae (vae).`,
  );
}
