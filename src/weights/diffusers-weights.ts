/** Finds the weights of a component in diffusers' folder layout. */
import { FormatError } from "../engine/errors.ts";
import type { ModelFolder } from "./sources/folder.ts";
import type { Weights } from "./safetensors/safetensors.ts";

/** The names of weight files: diffusers' for its own models, and transformers' for text encoders. */
export type WeightsStem = "diffusion_pytorch_model" | "model";

/** The names of the same weights as PyTorch pickles. */
const pickled: { readonly [S in WeightsStem]: string } = {
  diffusion_pytorch_model: "diffusion_pytorch_model.bin",
  model: "pytorch_model.bin",
};

/** Variants of the weights by precision or training, in order of preference; "" is the default. */
export const weightVariants: readonly string[] = ["", "bf16", "ema", "fp16", "fp32", "non_ema"];

/**
 * Opens the weights of a component, in one file or in shards. A variant is opened only if there are no
 * default weights.
 *
 * @throws FormatError if none of diffusers' names exists
 */
export async function openDiffusersWeights(
  folder: ModelFolder,
  stem: WeightsStem = "diffusion_pytorch_model",
): Promise<Weights> {
  const names = weightVariants.flatMap((variant) =>
    variant === ""
      ? [`${stem}.safetensors`, `${stem}.safetensors.index.json`]
      : [
          `${stem}.${variant}.safetensors`,
          `${stem}.safetensors.index.${variant}.json`,
          `${stem}.${variant}.safetensors.index.json`,
        ],
  );
  for (const name of names) {
    if (await folder.has(name)) return folder.weights(name);
  }
  const pickle = pickled[stem];
  if ((await folder.has(pickle)) || (await folder.has(`${pickle}.index.json`))) {
    throw new FormatError(
      `${folder.name} holds its weights as a PyTorch pickle, ${pickle}, which can run code of its own and is not read; save the model again in Python with save_pretrained(…, safe_serialization=True).`,
    );
  }
  throw new FormatError(
    `${folder.name} holds no weights: there is no ${names[0]}; download the whole folder.`,
  );
}
