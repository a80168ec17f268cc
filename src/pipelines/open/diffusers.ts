/** Folders in diffusers' layout: `model_index.json`, and a folder each for transformer, autoencoder and scheduler. */
import { FormatError } from "../../engine/errors.ts";
import { diffusersDiTConfig, diffusersDiTKeys } from "../../models/dit/checkpoint.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { checkTables } from "../../weights/check-keys.ts";
import { closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { joinQkv } from "../../weights/views.ts";
import { component, schedulerOf } from "./diffusers-component.ts";
import { tracedForDrawing } from "../graphs.ts";
import type { ImageModel } from "../image-model.ts";
import { type OpenModelOptions, refuseOptions } from "./open-options.ts";
import { openSD3Folder } from "./sd3/folder.ts";
import { type GivenVAE, openVAE, vaeOf } from "./vae.ts";

export const diffusersIndex = "model_index.json";

/** What diffusers' pipeline draws with unless told otherwise. */
const defaults = { steps: 50, guidance: 4 };

interface Opener {
  /** Options that mean something to it. */
  readonly takes: readonly (keyof OpenModelOptions)[];
  open(
    folder: ModelFolder,
    options: OpenModelOptions,
    vae: GivenVAE | undefined,
  ): Promise<ImageModel>;
}

const sd3: Opener = { takes: ["vae", "without", "promptTokens"], open: openSD3Folder };

const openers: Readonly<Record<string, Opener>> = {
  DiTPipeline: { takes: ["vae"], open: openDiT },
  StableDiffusion3Pipeline: sd3,
  StableDiffusion3Img2ImgPipeline: sd3,
  StableDiffusion3InpaintPipeline: sd3,
};

/**
 * Opens a folder with a model_index.json.
 *
 * @param vae stands in for its own
 * @throws FormatError when it is of another class, or a component is missing or unsound; UsageError when an option means
 *   nothing to it
 */
export async function openDiffusersFolder(
  folder: ModelFolder,
  options: OpenModelOptions,
  vae?: GivenVAE,
): Promise<ImageModel> {
  const pipeline = (await fieldsIn(folder, diffusersIndex)).text("_class_name");
  checkPipelineClass(folder.pathOf(diffusersIndex), pipeline);
  const opener = openers[pipeline]!;
  refuseOptions(folder.name, options, opener.takes);
  return opener.open(folder, options, vae);
}

/** @throws FormatError when no pipeline of this class can be opened */
export function checkPipelineClass(indexFile: string, pipeline: string): void {
  if (Object.hasOwn(openers, pipeline)) return;
  throw new FormatError(
    `${indexFile} describes a ${pipeline}, but of diffusers' pipelines only DiTPipeline and StableDiffusion3Pipeline are known; give a DiT or a Stable Diffusion 3.`,
  );
}

async function openDiT(
  folder: ModelFolder,
  _: OpenModelOptions,
  vae: GivenVAE | undefined,
): Promise<ImageModel> {
  const index = await fieldsIn(folder, diffusersIndex);
  const transformer = await component(folder, "transformer", "DiTTransformer2DModel");
  const process = await schedulerOf(folder);
  const given = vae ?? (await vaeOf(folder));
  const config = diffusersDiTConfig(transformer.fields);
  const network = { kind: "dit" as const, ...config };

  const file = await openDiffusersWeights(transformer.folder);
  return closingOnFailure([file], async (opened) => {
    const joined = joinQkv(file);
    const { params } = tracedForDrawing(network);
    const weights = checkedWeights(params, joined, diffusersDiTKeys);
    await checkTables(params, joined, diffusersDiTKeys);
    const decoder = await openVAE(given, config.channels);
    opened.push(decoder.file);
    return {
      name: folder.basename,
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
