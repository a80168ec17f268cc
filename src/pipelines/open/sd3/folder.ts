/** Stable Diffusion 3 as a folder in diffusers' layout. */
import {
  diffusersMMDiTConfig,
  diffusersMMDiTKeys,
  diffusersMMDiTWeights,
} from "../../../models/mmdit/checkpoint.ts";
import { checkedWeights } from "../../../weights/check-keys.ts";
import { closeAll, closingOnFailure } from "../../../weights/sources/closing.ts";
import { openDiffusersWeights } from "../../../weights/diffusers-weights.ts";
import { jsonIn, type ModelFolder } from "../../../weights/sources/folder.ts";
import { component, schedulerOf } from "../diffusers-component.ts";
import { tracedForDrawing } from "../../graphs.ts";
import type { ImageModel } from "../../image-model.ts";
import type { OpenModelOptions } from "../open-options.ts";
import { encoderFolder, openEncoderFolders, withTokenizers } from "./encoder-folders.ts";
import { sd3Model, wantedEncoders } from "./model.ts";
import { type GivenVAE, openVAE, vaeOf } from "../vae.ts";

/** What diffusers' pipeline draws with unless told otherwise. */
const defaults = { steps: 28, guidance: 7 };
const PROMPT_TOKENS = 256;

/**
 * Opens a StableDiffusion3Pipeline.
 *
 * @param vae stands in for its own
 * @throws FormatError when a component is missing, of another family or unsound
 */
export async function openSD3Folder(
  folder: ModelFolder,
  options: OpenModelOptions,
  vae: GivenVAE | undefined,
): Promise<ImageModel> {
  const index = (await jsonIn(folder, "model_index.json")) as Record<string, unknown>;
  const wanted = wantedEncoders(options).filter((name) => isThere(index[encoderFolder(name)]));
  const transformer = await component(folder, "transformer", "SD3Transformer2DModel");
  const process = await schedulerOf(folder);
  const given = vae ?? (await vaeOf(folder));
  const network = { kind: "mmdit" as const, ...diffusersMMDiTConfig(transformer.fields) };

  const file = await openDiffusersWeights(transformer.folder);
  return closingOnFailure([file], async (opened) => {
    const { params } = tracedForDrawing(network);
    const joined = diffusersMMDiTWeights(file, network);
    const weights = checkedWeights(params, joined, diffusersMMDiTKeys);
    const models = await openEncoderFolders(folder, wanted, opened);
    const decoder = await openVAE(given, network.channels);
    opened.push(decoder.file);
    const parts = {
      name: folder.basename,
      network,
      weights,
      process,
      decoder,
      defaults,
      close: () => closeAll(opened),
    };
    return sd3Model(parts, {
      encoders: await withTokenizers(models, folder),
      promptTokens: options.promptTokens ?? PROMPT_TOKENS,
      projectedL: true,
    });
  });
}

/** What a pipeline does without is [null, null] in its index. */
function isThere(entry: unknown): boolean {
  return Array.isArray(entry) && entry.some((part) => part !== null);
}
