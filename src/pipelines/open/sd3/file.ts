/**
 * Stable Diffusion 3 as a single file under Stability's names: the network alone, with the autoencoder, or with the text
 * encoders too. What the parts are shows in keys and shapes.
 */
import { diffusersScheduler } from "../../../diffusion/diffusers/schedulers.ts";
import { samplerNamed } from "../../../diffusion/samplers/index.ts";
import {
  autoencoderIn,
  type OpenAutoencoder,
} from "../../../models/coders/autoencoder-kl-checkpoint.ts";
import { mmditCheckpointConfig } from "../../../models/mmdit/checkpoint.ts";
import { checkedWeights } from "../../../weights/check-keys.ts";
import { fieldReader } from "../../../weights/config-fields.ts";
import type { Weights } from "../../../weights/safetensors/safetensors.ts";
import { weightsUnder } from "../../../weights/views.ts";
import { tracedForDrawing } from "../../graphs.ts";
import type { SamplingProcess } from "../../image-model.ts";
import type { SD3Network } from "./model.ts";
import { type SD3EncoderName, sd3EncoderNames } from "./prompt.ts";

/** How Stability's own code draws (its sd3_infer.py). */
export const sd3FileDefaults = { steps: 40, guidance: 4.5 };

/** Tokens that its T5 reads. */
export const SD3_FILE_TOKENS = 77;

/** Times of the published models, and the sampler of Stability's code; sigmas are rounded as in diffusers, which agrees. */
const scheduler = diffusersScheduler(
  "FlowMatchEulerDiscreteScheduler",
  fieldReader("Stable Diffusion 3", { shift: 3 }),
);

export const sd3FileProcess: SamplingProcess = {
  kind: "continuous",
  parameterization: scheduler.parameterization,
  sampler: "dpmpp-2m-sigma",
  samplerNamed,
  levels: (steps, { shift }) => scheduler.levels(steps, { shift }),
  start: (first) => scheduler.start(first),
};

const networkPrefix = "model.diffusion_model.";
const autoencoderPrefix = "first_stage_model.";
const encoderPrefixes: { readonly [N in SD3EncoderName]: string } = {
  "clip-l": "text_encoders.clip_l.transformer.",
  "clip-g": "text_encoders.clip_g.transformer.",
  t5: "text_encoders.t5xxl.transformer.",
};

function has({ entries }: Weights, prefix: string): boolean {
  return [...entries.keys()].some((key) => key.startsWith(prefix));
}

function networkWeights(file: Weights): Weights {
  return has(file, networkPrefix) ? weightsUnder(file, networkPrefix) : file;
}

/** Whether a file holds the network of a Stable Diffusion 3. */
export function isSD3(file: Weights): boolean {
  return has(networkWeights(file), "joint_blocks.");
}

/** @throws FormatError when the weights are not what such a network has */
export function networkIn(file: Weights): Pick<SD3Network, "network" | "weights"> {
  const own = networkWeights(file);
  const network = { kind: "mmdit" as const, ...mmditCheckpointConfig(own) };
  return { network, weights: checkedWeights(tracedForDrawing(network).params, own) };
}

/** The autoencoder in a file; undefined where there is none. */
export function sd3AutoencoderIn(file: Weights): OpenAutoencoder | undefined {
  if (!has(file, autoencoderPrefix)) return undefined;
  // It is closed with the file.
  return autoencoderIn(weightsUnder(file, autoencoderPrefix));
}

/** The text encoders in a file: those of a whole Stable Diffusion 3, or the one that it is; none in any other file. */
export function encodersIn(file: Weights): Partial<Record<SD3EncoderName, Weights>> {
  const inside = sd3EncoderNames.filter((name) => has(file, encoderPrefixes[name]));
  if (inside.length > 0) {
    return Object.fromEntries(
      inside.map((name) => [name, weightsUnder(file, encoderPrefixes[name])]),
    );
  }
  if (has(file, "encoder.block.")) return { t5: file };
  const width = file.entries.get("text_model.embeddings.token_embedding.weight")?.shape[1];
  if (width === undefined) return {};
  // The published ones show which they are by their widths, others by what their file is called.
  const isL = width === 768 || (width !== 1280 && /clip[-_]?l/i.test(file.name));
  return isL ? { "clip-l": file } : { "clip-g": file };
}
