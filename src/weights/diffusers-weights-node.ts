/** Which file of a component's folder in diffusers' layout holds its weights. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../engine/errors.ts";

/** What diffusers calls the weights of its own models, and what transformers calls those of text encoders. */
export type WeightsStem = "diffusion_pytorch_model" | "model";

/** What the same weights are called as a PyTorch pickle. */
const pickled: { readonly [S in WeightsStem]: string } = {
  diffusion_pytorch_model: "diffusion_pytorch_model.bin",
  model: "pytorch_model.bin",
};

/**
 * The weights of a component, whole or the index of their shards; the variant (as "fp16") only where there are no others.
 *
 * @throws FormatError when none of the names that diffusers gives is there
 */
export async function diffusersWeights(
  folder: string,
  stem: WeightsStem = "diffusion_pytorch_model",
): Promise<string> {
  const names: readonly string[] = await readdir(folder).catch(() => []);
  const plain = [`${stem}.safetensors`, `${stem}.safetensors.index.json`];
  const variant = new RegExp(
    `^${stem}(\\.\\w+\\.safetensors|\\.\\w+\\.safetensors\\.index\\.json|\\.safetensors\\.index\\.\\w+\\.json)$`,
  );
  const found =
    plain.find((name) => names.includes(name)) ??
    names.toSorted().find((name) => variant.test(name));
  if (found !== undefined) return join(folder, found);
  const pickle = pickled[stem];
  if (names.some((name) => name === pickle || name === `${pickle}.index.json`)) {
    throw new FormatError(
      `${folder} holds its weights as a PyTorch pickle, ${pickle}, which can run code of its own and is not read; save the model again in Python with save_pretrained(…, safe_serialization=True).`,
    );
  }
  throw new FormatError(
    `${folder} holds no weights: there is no ${plain[0]}; download the whole folder.`,
  );
}
