/** Which file of a component's folder in diffusers' layout holds its weights. */
import { FormatError } from "../engine/errors.ts";
import type { ModelFolder } from "./sources/folder.ts";
import type { Weights } from "./safetensors/safetensors.ts";

/** What diffusers calls the weights of its own models, and what transformers calls those of text encoders. */
export type WeightsStem = "diffusion_pytorch_model" | "model";

/** What the same weights are called as a PyTorch pickle. */
const pickled: { readonly [S in WeightsStem]: string } = {
  diffusion_pytorch_model: "diffusion_pytorch_model.bin",
  model: "pytorch_model.bin",
};

/** Of the same weights in other numbers or of another training, in the order in which they are taken; "" are the plain ones. */
export const weightVariants: readonly string[] = ["", "bf16", "ema", "fp16", "fp32", "non_ema"];

/**
 * Opens the weights of a component, whole or in shards; a variant only where there are no others.
 *
 * @throws FormatError when none of the names that diffusers gives is there
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
