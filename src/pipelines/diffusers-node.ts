/** Folders in diffusers' layout: `model_index.json`, and a folder each for transformer, autoencoder and scheduler. */
import { basename, join, resolve } from "node:path";
import { FormatError } from "../engine/errors.ts";
import { diffusersDiTConfig, diffusersDiTKeys } from "../models/dit.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { checkTables } from "../weights/check-tables.ts";
import { joinQkv } from "../weights/join-qkv.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { diffusersWeights } from "../weights/diffusers-weights-node.ts";
import { closeAll, closingOnFailure, readFields } from "../weights/files-node.ts";
import { component, schedulerOf } from "./diffusers-component-node.ts";
import { tracedForDrawing } from "./graphs.ts";
import type { ImageModel } from "./image-model.ts";
import { type OpenModelOptions, refuseOptions } from "./open-options.ts";
import { openSD3Folder } from "./sd3-node.ts";
import { openVAE } from "./vae-node.ts";

/** What diffusers' pipeline draws with unless told otherwise. */
const defaults = { steps: 50, guidance: 4 };

const openers: Readonly<
  Record<string, (path: string, options: OpenModelOptions) => Promise<ImageModel>>
> = {
  DiTPipeline: openDiT,
  StableDiffusion3Pipeline: openSD3Folder,
  StableDiffusion3Img2ImgPipeline: openSD3Folder,
  StableDiffusion3InpaintPipeline: openSD3Folder,
};

/**
 * Opens a folder with a model_index.json.
 *
 * @throws FormatError when it is of another class, or a component is missing or unsound; UsageError when an option means
 *   nothing to it
 */
export async function openDiffusersFolder(
  path: string,
  options: OpenModelOptions,
): Promise<ImageModel> {
  const indexFile = join(path, "model_index.json");
  const pipeline = (await readFields(indexFile)).text("_class_name");
  checkPipelineClass(indexFile, pipeline);
  return openers[pipeline]!(path, options);
}

/** @throws FormatError when no pipeline of this class can be opened */
export function checkPipelineClass(indexFile: string, pipeline: string): void {
  if (Object.hasOwn(openers, pipeline)) return;
  throw new FormatError(
    `${indexFile} describes a ${pipeline}, but of diffusers' pipelines only DiTPipeline and StableDiffusion3Pipeline are known; give a DiT or a Stable Diffusion 3.`,
  );
}

async function openDiT(path: string, options: OpenModelOptions): Promise<ImageModel> {
  refuseOptions(path, options, ["vae"]);
  const index = await readFields(join(path, "model_index.json"));
  const transformer = await component(path, "transformer", "DiTTransformer2DModel");
  const process = await schedulerOf(path);
  const decoderPath = options.vae ?? (await component(path, "vae", "AutoencoderKL")).folder;
  const config = diffusersDiTConfig(transformer.fields);
  const network = { kind: "dit" as const, ...config };

  const file = await openSafetensorsFile(await diffusersWeights(transformer.folder));
  return closingOnFailure([file], async (opened) => {
    const joined = joinQkv(file);
    const { params } = tracedForDrawing(network);
    const weights = checkedWeights(params, joined, diffusersDiTKeys);
    await checkTables(params, joined, diffusersDiTKeys);
    const decoder = await openVAE(decoderPath, config.channels);
    opened.push(decoder.file);
    return {
      name: basename(resolve(path)),
      network,
      weights,
      process,
      classes: classNames(index.texts("id2label", {})),
      decoder,
      defaults,
      close: () => closeAll(opened),
    };
  });
}

/** A class may have several names, parted by commas; of classes that share one the last has it, as in diffusers. */
function classNames(labels: Readonly<Record<string, string>>): ReadonlyMap<string, number> {
  const classes = new Map<string, number>();
  for (const [id, names] of Object.entries(labels)) {
    for (const name of names.split(",")) classes.set(name.trim(), Number(id));
  }
  return classes;
}
