/** Says what a folder is that holds no model, and what to give in its place. */
import { basename, dirname, resolve } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { modelFiles } from "../../models/card.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { exists } from "../../weights/sources/folder-node.ts";
import { diffusersIndex } from "./diffusers.ts";
import { weightFiles } from "./given-encoders-node.ts";
import { enumerated } from "./split-parts.ts";

/** Where the class of an autoencoder stands: in its own folder, and in that of its training. */
const codecConfigs = ["config.json", "vae/config.json", "vqgan/config.json"];

/** The error for a folder that cannot be opened. */
export async function folderAtFault(path: string, folder: ModelFolder): Promise<UsageError> {
  return new UsageError(`${path} ${await fault(path, folder)}`);
}

async function fault(path: string, folder: ModelFolder): Promise<string> {
  if (await folder.has(modelFiles.lora)) {
    return "holds a LoRA, which changes how a model draws; give it as --lora, and the model that it was trained on as --model.";
  }
  const around = dirname(resolve(path));
  if (await exists(`${around}/${diffusersIndex}`)) {
    return `is a part of a model in diffusers' layout; give the folder of the whole model, ${around}.`;
  }
  // A folder of diffusers that lost its index has an autoencoder too, beside a network.
  const network =
    (await folder.has("transformer/config.json")) || (await folder.has("unet/config.json"));
  if (network) {
    return `lacks its ${diffusersIndex}, which lists the parts of a model in diffusers' layout; download the whole folder.`;
  }
  for (const config of codecConfigs) {
    if (!(await folder.has(config))) continue;
    const name = (await fieldsIn(folder, config)).text("_class_name", "");
    if (/Autoencoder|VQModel/.test(name)) {
      return "holds an autoencoder, which draws nothing by itself; train a model on it with latents.autoencoder, and give the folder of that model.";
    }
  }
  if ((await folder.has("config.json")) && (await folder.has("metrics.jsonl"))) {
    return "holds a training that has saved no model yet; let it go on, or resume it with --resume.";
  }
  const files = (await weightFiles(path)).map((file) => basename(file));
  if (files.length > 0) {
    const few = enumerated(files.slice(0, 3));
    return `holds files of weights, but nothing that says what belongs together; give the file of a network as the model, here ${files.length > 3 ? `one of ${files.length} such as ${few}` : few}.`;
  }
  return `holds neither a ${modelFiles.card}, as patchwise train writes it, nor a ${diffusersIndex}, as diffusers does; give the folder of a model.`;
}
