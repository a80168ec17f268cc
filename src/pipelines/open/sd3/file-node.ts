/** Stable Diffusion 3 in a single file on disk, with what is not inside from elsewhere. */
import { basename, dirname, extname, resolve } from "node:path";
import { type Closable, closeAll } from "../../../weights/sources/closing.ts";
import { diskFolder } from "../../../weights/sources/folder-node.ts";
import type { Weights } from "../../../weights/safetensors/safetensors.ts";
import type { ImageModel } from "../../image-model.ts";
import type { OpenModelOptions } from "../open-options.ts";
import { missingTokenizers, withTokenizers } from "./encoder-folders.ts";
import { openGivenEncoders, textModels } from "./encoders-node.ts";
import {
  encodersIn,
  networkIn,
  SD3_FILE_TOKENS,
  sd3AutoencoderIn,
  sd3FileDefaults,
  sd3FileProcess,
} from "./file.ts";
import { sd3Model, wantedEncoders } from "./model.ts";
import { sd3EncoderTitles } from "./prompt.ts";
import { openVAE } from "../vae.ts";
import { vaeAt } from "../vae-node.ts";

/**
 * Opens a file; what drawing lacks is told in the model, which can be looked at all the same.
 *
 * @param opened the file, and where others go that are opened
 * @throws UsageError when an option is none; FormatError when a part is unsound, or does not fit the others
 */
export async function openSD3File(
  path: string,
  file: Weights,
  options: OpenModelOptions,
  opened: Closable[],
): Promise<ImageModel> {
  const { vae, textEncoders = [], tokenizers = dirname(resolve(path)) } = options;
  const wanted = wantedEncoders(options);
  const { network, weights } = networkIn(file);
  const inside = encodersIn(file);
  const left = Object.fromEntries(
    wanted.flatMap((name) => (inside[name] ? [[name, inside[name]]] : [])),
  );
  const models = {
    ...textModels(left),
    ...(textEncoders.length > 0 && (await openGivenEncoders(textEncoders, wanted, opened))),
  };
  const given = vaeAt(vae);
  const decoder = given ? await openVAE(given, network.channels) : sd3AutoencoderIn(file);
  if (given && decoder) opened.push(decoder.file);
  const lacking = wanted.filter((name) => !models[name]);
  const unread = await missingTokenizers(models, diskFolder(tokenizers));
  const parts = {
    name: basename(path, extname(path)),
    network,
    weights,
    process: sd3FileProcess,
    decoder,
    defaults: sd3FileDefaults,
    close: () => closeAll(opened),
  };
  const lacks =
    lacking.length > 0
      ? `${path} holds no ${lacking.map((name) => sd3EncoderTitles[name]).join(", ")}; give the text encoders as --text-encoders (textEncoders), such as clip_l.safetensors, clip_g.safetensors and t5xxl_fp16.safetensors, or draw with --without ${lacking.join(" ")} (without).`
      : unread.length > 0
        ? `${path} holds no vocabularies, as no such file does, and ${tokenizers} has no ${unread.join(", ")}; give --tokenizers (tokenizers), a folder that has them, such as the same model in diffusers' layout.`
        : undefined;
  if (lacks !== undefined) return { ...parts, lacks };
  return sd3Model(parts, {
    encoders: await withTokenizers(models, diskFolder(tokenizers)),
    promptTokens: options.promptTokens ?? SD3_FILE_TOKENS,
    projectedL: false,
  });
}
