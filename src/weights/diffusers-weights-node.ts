/** Which file of a component's folder in diffusers' layout holds its weights. */
import { join } from "node:path";
import { FormatError } from "../engine/errors.ts";
import { exists } from "./files-node.ts";

const stem = "diffusion_pytorch_model";
const names = [
  `${stem}.safetensors`,
  `${stem}.safetensors.index.json`,
  `${stem}.fp16.safetensors`,
] as const;

/** @throws FormatError when none of the names that diffusers gives is there */
export async function diffusersWeights(folder: string): Promise<string> {
  for (const name of names) {
    const path = join(folder, name);
    if (await exists(path)) return path;
  }
  if (await exists(join(folder, `${stem}.bin`))) {
    throw new FormatError(
      `${folder} holds its weights as a PyTorch pickle, ${stem}.bin, which can run code of its own and is not read; save the model again in Python with save_pretrained(…, safe_serialization=True).`,
    );
  }
  throw new FormatError(
    `${folder} holds no weights: there is no ${names[0]}; download the whole folder.`,
  );
}
