/**
 * Folders in diffusers' layout: `model_index.json` names the pipeline's class, and each component has a folder. The classes
 * that can be opened are rows of `pipelineClasses`; how diffusers writes a network is in its family.
 */
import { diffusersScheduler } from "../../diffusion/diffusers/schedulers.ts";
import { FormatError, PatchwiseError, quote, ShapeError } from "../../engine/errors.ts";
import {
  type OpenAutoencoder,
  openAutoencoderFolder,
} from "../../models/coders/autoencoder-kl-checkpoint.ts";
import type { AutoencoderKLName } from "../../models/coders/autoencoder-kl-config.ts";
import { codecShape } from "../../models/coders/image-codec.ts";
import { families, familyOf } from "../../models/families.ts";
import { type NetworkConfig, requireFewPatches } from "../../models/network.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { checkedWeights, checkTables } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import {
  openVideoAutoencoderFolder,
  type OpenVideoAutoencoder,
} from "../../models/coders/video-autoencoder-checkpoint.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { fieldsIn, jsonIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { type ImageModel, tracedForDrawing } from "../image-model.ts";
import { schedulerProcess } from "../process.ts";
import {
  fluxDrawing,
  fluxModel,
  fluxTextEncoders,
  type FolderFields,
  kleinDrawing,
  kleinModel,
  kleinTextEncoders,
  zImageDrawing,
  zImageModel,
  zImageTextEncoders,
} from "./flux.ts";
import { miniT2IModel, miniT2IProcess, miniT2ITextEncoders } from "./minit2i.ts";
import { type OpenModelOptions, refuseOptions } from "./options.ts";
import { sd3Model, sd3TextEncoders } from "./sd3.ts";
import { wanModel, wanTextEncoders } from "./wan.ts";
import {
  openEncoderFolders,
  type OpenTextEncoders,
  readTokenizers,
  type TextEncoderTable,
  wantedEncoders,
} from "./text-encoders.ts";

export const diffusersIndex = "model_index.json";

/** A pipeline of diffusers. Its transformer is that of the family whose `diffusers` has this class name. */
interface PipelineClass {
  readonly transformer: string;
  /** Options that apply to it. */
  readonly options: readonly (keyof OpenModelOptions)[];
  /** The settings of diffusers' pipeline, with diffusers' own schedulers. */
  readonly defaults?: { readonly steps: number; readonly guidance: number };
  /** The process and the settings of a pipeline that decides on more than its scheduler. */
  readonly drawing?: (
    fields: FolderFields,
    network: NetworkConfig,
  ) => Pick<ImageModel, "process" | "defaults">;
  /** The class of its autoencoder; AutoencoderKL unless given. */
  readonly autoencoder?: string;
  /** True if it draws pixels, without an autoencoder. */
  readonly drawsPixels?: boolean;
  /** True if it draws clips, with a causal video autoencoder. */
  readonly drawsClips?: boolean;
  /** True if position tables in the file are checked against the network's own. */
  readonly checksTables: boolean;
  /** For models that take prompts: the text encoders, and how the model is put together with them. */
  readonly text?: {
    readonly encoders: TextEncoderTable;
    withEncoders(
      parts: ImageModel,
      encoders: OpenTextEncoders,
      tokenizers: Readonly<Record<string, Tokenizer>>,
      options: OpenModelOptions,
    ): ImageModel;
  };
}

const dit: PipelineClass = {
  transformer: "DiTTransformer2DModel",
  options: ["vae"],
  defaults: { steps: 50, guidance: 4 },
  checksTables: true,
};

const sd3: PipelineClass = {
  transformer: "SD3Transformer2DModel",
  options: ["vae", "without", "promptTokens"],
  defaults: { steps: 28, guidance: 7 },
  // The table in the file is larger than the pictures: the network takes its middle.
  checksTables: false,
  text: {
    encoders: sd3TextEncoders,
    withEncoders: (parts, encoders, tokenizers, { promptTokens = 256 }) =>
      sd3Model(parts, { encoders, tokenizers, promptTokens, projectedL: true }),
  },
};

const miniT2I: PipelineClass = {
  transformer: "MiniT2IMMJiTModel",
  options: ["promptTokens"],
  drawing: ({ transformer, scheduler }) => miniT2IProcess(transformer, scheduler),
  drawsPixels: true,
  checksTables: false,
  text: { encoders: miniT2ITextEncoders, withEncoders: miniT2IModel },
};

const wan: PipelineClass = {
  transformer: "WanTransformer3DModel",
  options: [],
  defaults: { steps: 50, guidance: 5 },
  drawsClips: true,
  checksTables: false,
  text: { encoders: wanTextEncoders, withEncoders: wanModel },
};

const flux: PipelineClass = {
  transformer: "FluxTransformer2DModel",
  options: ["vae", "promptTokens"],
  drawing: fluxDrawing,
  checksTables: false,
  text: { encoders: fluxTextEncoders, withEncoders: fluxModel },
};

const klein: PipelineClass = {
  transformer: "Flux2Transformer2DModel",
  options: ["vae", "promptTokens"],
  drawing: kleinDrawing,
  autoencoder: "AutoencoderKLFlux2",
  checksTables: false,
  text: { encoders: kleinTextEncoders, withEncoders: kleinModel },
};

const zImage: PipelineClass = {
  transformer: "ZImageTransformer2DModel",
  options: ["vae", "promptTokens"],
  drawing: zImageDrawing,
  checksTables: false,
  text: { encoders: zImageTextEncoders, withEncoders: zImageModel },
};

const pipelineClasses: Readonly<Record<string, PipelineClass>> = {
  DiTPipeline: dit,
  StableDiffusion3Pipeline: sd3,
  StableDiffusion3Img2ImgPipeline: sd3,
  StableDiffusion3InpaintPipeline: sd3,
  MiniT2ITextToImagePipeline: miniT2I,
  WanPipeline: wan,
  FluxPipeline: flux,
  Flux2KleinPipeline: klein,
  ZImagePipeline: zImage,
};

/**
 * The row of a pipeline class.
 *
 * @throws FormatError if pipelines of this class cannot be opened
 */
export function pipelineClass(indexFile: string, name: string): PipelineClass {
  const found = Object.hasOwn(pipelineClasses, name) ? pipelineClasses[name] : undefined;
  if (found) return found;
  throw new FormatError(
    `${indexFile} describes a ${name}, but only these pipelines of diffusers can be opened: ${Object.keys(pipelineClasses).join(", ")}.`,
  );
}

function transformerFamily({ transformer }: PipelineClass) {
  for (const { kind, diffusers } of families.values()) {
    if (diffusers?.className === transformer) return { kind, diffusers };
  }
  throw new PatchwiseError(`No model family has diffusers' class ${transformer}.`);
}

/** Folders of the components that an option replaces or leaves out, so that they need not be downloaded. */
export function unneededComponents(
  { text }: PipelineClass,
  { without = [], vae }: OpenModelOptions,
): ReadonlySet<string> {
  const left = without.flatMap((name) => text?.encoders[name]?.folder ?? []);
  return new Set([...left, ...(vae === undefined ? [] : ["vae"])]);
}

/**
 * Opens a folder with a model_index.json.
 *
 * @param vae replaces the folder's own autoencoder
 * @throws FormatError if the pipeline is of another class, or a component is missing or damaged; UsageError if an option
 *   does not apply
 */
export async function openDiffusersFolder(
  folder: ModelFolder,
  options: OpenModelOptions,
  vae?: GivenVAE,
): Promise<ImageModel> {
  try {
    return await openParts(folder, options, vae);
  } catch (cause) {
    // Of sizes that do not go together, such as channels and the groups in which they are normalized.
    if (!(cause instanceof ShapeError)) throw cause;
    throw new FormatError(
      `The configs of ${folder.name} describe a model that cannot be built: ${cause.message.replace(/\.$/, "")}; download the whole folder again.`,
      { cause },
    );
  }
}

async function openParts(
  folder: ModelFolder,
  options: OpenModelOptions,
  vae: GivenVAE | undefined,
): Promise<ImageModel> {
  const index = await fieldsIn(folder, diffusersIndex);
  const row = pipelineClass(folder.pathOf(diffusersIndex), index.text("_class_name"));
  refuseOptions(folder.name, options, row.options);
  const wanted = row.text ? await encodersToOpen(folder, row.text.encoders, options) : [];
  const transformer = await component(folder, "transformer", row.transformer);
  if (row.drawsClips) checkSingleTransformer(index, await jsonIn(folder, diffusersIndex));
  const scheduler = await configOf(folder, "scheduler", "scheduler_config.json");
  const given = row.drawsPixels || row.drawsClips ? undefined : (vae ?? (await vaeOf(folder, row)));
  const family = transformerFamily(row);
  const fromFields = family.diffusers.config(transformer.fields);

  const file = await openDiffusersWeights(transformer.folder);
  return closingOnFailure([file], async (opened) => {
    const { keys } = family.diffusers;
    const owner = transformer.fields.file;
    requireFewPatches(owner, { kind: family.kind, ...fromFields });
    requirePlausible(owner, fromFields, file);
    const completed = family.diffusers.complete?.(fromFields, transformer.fields, file);
    const config = (await completed) ?? fromFields;
    const network: NetworkConfig = { kind: family.kind, ...config };
    const stored = family.diffusers.weights(file, config);
    const { params } = tracedForDrawing(network);
    const weights = checkedWeights(params, stored, keys);
    if (row.checksTables) await checkTables(params, stored, keys);
    const { text } = row;
    const openComponent = (name: string, modelType: string) => component(folder, name, modelType);
    const encoders = text
      ? await openEncoderFolders(text.encoders, wanted, openComponent, opened)
      : {};
    const decoder = given && (await openVAE(given, network));
    if (decoder) opened.push(decoder.file);
    const clipDecoder = row.drawsClips ? await clipDecoderOf(folder, network.channels) : undefined;
    if (clipDecoder) opened.push(clipDecoder.file);
    const parts: ImageModel = {
      name: folder.basename,
      network,
      weights,
      ...drawingOf(row, { index, transformer: transformer.fields, scheduler }, network),
      classes: network.condition.kind === "class" ? classNames(index) : undefined,
      decoder,
      clipDecoder,
      close: () => closeAll(opened),
    };
    if (!text) return parts;
    const tokenizers = await readTokenizers(text.encoders, encoders, folder);
    return text.withEncoders(parts, encoders, tokenizers, options);
  });
}

/** Encoders that no option leaves out and that the folder has: in its index, missing components are [null, null]. */
async function encodersToOpen(
  folder: ModelFolder,
  table: TextEncoderTable,
  options: OpenModelOptions,
): Promise<readonly string[]> {
  const index = (await jsonIn(folder, diffusersIndex)) as Record<string, unknown>;
  return wantedEncoders(table, options, folder.name).filter((name) => {
    const entry = index[table[name]!.folder];
    return Array.isArray(entry) && entry.some((part) => part !== null);
  });
}

/** Class indices by name. A class may have several names, separated by commas; the last class of a name has it. */
function classNames(index: FieldReader): ReadonlyMap<string, number> {
  const classes = new Map<string, number>();
  for (const [id, names] of Object.entries(index.texts("id2label", {}))) {
    for (const name of names.split(",")) classes.set(name.trim(), Number(id));
  }
  return classes;
}

/** A component of a folder in diffusers' layout. */
export interface Component {
  readonly folder: ModelFolder;
  /** The fields of its config.json. */
  readonly fields: FieldReader;
}

/**
 * Reads the config of a component.
 *
 * @param family class in diffusers, or model type in transformers, that the config must name
 * @throws FormatError if the component is missing, or of another family
 */
export async function component(
  whole: ModelFolder,
  name: string,
  family: string,
): Promise<Component> {
  const fields = await configOf(whole, name, "config.json");
  const own = fields.text("_class_name", fields.text("model_type", family));
  if (own === family) return { folder: whole.folder(name), fields };
  throw new FormatError(
    `${fields.file} describes a ${own}, but the ${name} of ${whole.name} must be a ${family}; download the whole folder again.`,
  );
}

function drawingOf(
  { drawing, defaults }: PipelineClass,
  fields: FolderFields,
  network: NetworkConfig,
): Pick<ImageModel, "process" | "defaults"> {
  if (drawing) return drawing(fields, network);
  const { scheduler } = fields;
  const name = scheduler.text("_class_name");
  return {
    process: schedulerProcess(name, diffusersScheduler(name, scheduler)),
    defaults: defaults!,
  };
}

async function configOf(whole: ModelFolder, name: string, file: string): Promise<FieldReader> {
  const folder = whole.folder(name);
  if (await folder.has(file)) return fieldsIn(folder, file);
  throw new FormatError(
    `${whole.name} lacks its ${name}: there is no ${quote(`${name}/${file}`)}; download the whole folder.`,
  );
}

/** An autoencoder that replaces a model's own. */
export interface GivenVAE {
  readonly name: string;
  /** @param wanted the published autoencoder that a file without a config is, where several have as many channels */
  open(wanted?: AutoencoderKLName): Promise<OpenAutoencoder>;
}

/**
 * Opens an autoencoder for the latents of a network.
 *
 * @throws FormatError if it decodes latents of another number of channels
 */
export async function openVAE(vae: GivenVAE, network: NetworkConfig): Promise<OpenAutoencoder> {
  const { channels } = network;
  const opened = await vae.open(familyOf(network).autoencoder);
  return closingOnFailure([opened.file], async () => {
    const { latents } = codecShape(opened);
    if (latents === channels) return opened;
    throw new FormatError(
      `${vae.name} decodes latents of ${latents} channels, but the model draws ${channels}; give the autoencoder that the model was trained with.`,
    );
  });
}

/** Refuses models that hand over from one transformer to another while they draw. */
function checkSingleTransformer(index: FieldReader, fields: unknown): void {
  const second = (fields as Record<string, unknown>)["transformer_2"];
  if (!Array.isArray(second) || second.every((part) => part === null)) return;
  throw new FormatError(
    `${index.file} describes two transformers, of which the first draws at high noise only; give a model with one, such as Wan2.1-T2V-1.3B or Wan2.2-TI2V-5B.`,
  );
}

/**
 * Opens the video autoencoder of a folder for latents with a number of channels.
 *
 * @throws FormatError if it decodes latents of another number of channels
 */
async function clipDecoderOf(whole: ModelFolder, channels: number): Promise<OpenVideoAutoencoder> {
  const { folder } = await component(whole, "vae", "AutoencoderKLWan");
  const opened = await openVideoAutoencoderFolder(folder);
  return closingOnFailure([opened.file], async () => {
    const { latentChannels } = opened.config;
    if (latentChannels === channels) return opened;
    throw new FormatError(
      `${folder.name} decodes latents of ${latentChannels} channels, but the model draws ${channels}; give the autoencoder that the model was trained with.`,
    );
  });
}

async function vaeOf(
  whole: ModelFolder,
  { autoencoder = "AutoencoderKL" }: PipelineClass,
): Promise<GivenVAE> {
  const { folder } = await component(whole, "vae", autoencoder);
  return { name: folder.name, open: () => openAutoencoderFolder(folder) };
}
