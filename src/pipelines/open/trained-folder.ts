/** Folders that `patchwise train` writes. */
import { readTrainedFolder } from "../../models/card-folder.ts";
import { modelFiles } from "../../models/card.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import type { ImageModel } from "../image-model.ts";
import { type OpenModelOptions, refuseOptions } from "./open-options.ts";
import { trainedModel } from "./trained-model.ts";

/** @throws FormatError when a file is missing or unsound; UsageError when an option is given, of which none means anything to it */
export async function openTrainedFolder(
  folder: ModelFolder,
  options: OpenModelOptions,
): Promise<ImageModel> {
  refuseOptions(folder.name, options, []);
  const { card, tokenizer } = await readTrainedFolder(folder);
  const weights = await folder.weights(modelFiles.weights);
  return closingOnFailure([weights], async (opened) => {
    const file = card.latents ? modelFiles.autoencoder : card.tokens && modelFiles.vqgan;
    const autoencoder = file && (await folder.weights(file));
    if (autoencoder) opened.push(autoencoder);
    return trainedModel({ card, weights, tokenizer, autoencoder });
  });
}
