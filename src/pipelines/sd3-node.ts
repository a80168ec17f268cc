/** Stable Diffusion 3 as a folder in diffusers' layout. */
import { basename, join, resolve } from "node:path";
import {
  diffusersMMDiTConfig,
  diffusersMMDiTKeys,
  diffusersMMDiTWeights,
} from "../models/mmdit-checkpoint.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { diffusersWeights } from "../weights/diffusers-weights-node.ts";
import { closeAll, closingOnFailure, readJson } from "../weights/files-node.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { component, schedulerOf } from "./diffusers-component-node.ts";
import { tracedForDrawing } from "./graphs.ts";
import type { ImageModel } from "./image-model.ts";
import { type OpenModelOptions, refuseOptions } from "./open-options.ts";
import { encoderFolder, openEncoderFolders, withTokenizers } from "./sd3-encoders-node.ts";
import { sd3Model, wantedEncoders } from "./sd3-model.ts";
import { openVAE } from "./vae-node.ts";

/** What diffusers' pipeline draws with unless told otherwise. */
const defaults = { steps: 28, guidance: 7 };
const PROMPT_TOKENS = 256;

/**
 * Opens a StableDiffusion3Pipeline.
 *
 * @throws FormatError when a component is missing, of another family or unsound; UsageError when an option means nothing
 *   to it
 */
export async function openSD3Folder(path: string, options: OpenModelOptions): Promise<ImageModel> {
  refuseOptions(path, options, ["vae", "without", "promptTokens"]);
  const index = (await readJson(join(path, "model_index.json"))) as Record<string, unknown>;
  const wanted = wantedEncoders(options).filter((name) => isThere(index[encoderFolder(name)]));
  const transformer = await component(path, "transformer", "SD3Transformer2DModel");
  const process = await schedulerOf(path);
  const decoderPath = options.vae ?? (await component(path, "vae", "AutoencoderKL")).folder;
  const network = { kind: "mmdit" as const, ...diffusersMMDiTConfig(transformer.fields) };

  const file = await openSafetensorsFile(await diffusersWeights(transformer.folder));
  return closingOnFailure([file], async (opened) => {
    const { params } = tracedForDrawing(network);
    const joined = diffusersMMDiTWeights(file, network);
    const weights = checkedWeights(params, joined, diffusersMMDiTKeys);
    const models = await openEncoderFolders(path, wanted, opened);
    const decoder = await openVAE(decoderPath, network.channels);
    opened.push(decoder.file);
    const parts = {
      name: basename(resolve(path)),
      network,
      weights,
      process,
      decoder,
      defaults,
      close: () => closeAll(opened),
    };
    return sd3Model(parts, {
      encoders: await withTokenizers(models, path),
      promptTokens: options.promptTokens ?? PROMPT_TOKENS,
      projectedL: true,
    });
  });
}

/** What a pipeline does without is [null, null] in its index. */
function isThere(entry: unknown): boolean {
  return Array.isArray(entry) && entry.some((part) => part !== null);
}
