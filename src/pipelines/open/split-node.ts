/**
 * Models in parts, as ComfyUI has them: the network's file with what stands beside it in `text_encoders/`, `vae/` and the folders of
 * tokenizers, or with what is given.
 */
import { basename, dirname, join, resolve } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { codecShape } from "../../models/coders/image-codec.ts";
import { openAutoencoder } from "../../models/coders/image-codec-node.ts";
import { familyOf } from "../../models/families.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type Closable, closing } from "../../weights/sources/closing.ts";
import { diskFolder, exists } from "../../weights/sources/folder-node.ts";
import type { ImageModel } from "../image-model.ts";
import { type GivenVAE, openVAE } from "./diffusers.ts";
import { openGivenEncoders, weightFiles } from "./given-encoders-node.ts";
import { type OpenModelOptions, refuseOptions } from "./options.ts";
import type { SplitModel } from "./split-models.ts";
import { assembled, enumerated, splitOptions } from "./split-parts.ts";
import { encoderWeightsIn, encoderWidth, wantedEncoders } from "./text-encoders.ts";
import { autoencoderInside, encodersInside, joinedEncoders } from "./whole-file.ts";

/** The names of the folders, each with the one that older versions of ComfyUI use. */
const folders = {
  network: ["diffusion_models", "unet"],
  encoders: ["text_encoders", "clip"],
  vae: ["vae"],
} as const;

/** The file of a network. */
interface NetworkFile {
  readonly path: string;
  readonly file: Weights;
  readonly parts: Pick<ImageModel, "network" | "weights" | "close">;
}

/** Returns the network's file in a folder of parts; undefined if the folder has none of the folders for it. */
export async function splitNetworkFile(path: string): Promise<string | undefined> {
  for (const root of [path, join(path, "split_files")]) {
    for (const name of folders.network) {
      const folder = join(root, name);
      if (!(await exists(folder))) continue;
      const files = await weightFiles(folder);
      if (files.length === 1) return files[0]!;
      throw new UsageError(
        files.length === 0
          ? `${folder} is empty; put the network's .safetensors or .gguf file into it.`
          : `${folder} holds ${enumerated(files.map((file) => basename(file)))}; give the path of one of them as the model.`,
      );
    }
  }
  return undefined;
}

/** The folder whose folders hold the parts of a file's model; undefined if the file lies somewhere else. */
function rootOf(path: string): string | undefined {
  const folder = dirname(resolve(path));
  const isPart = (folders.network as readonly string[]).includes(basename(folder));
  return isPart ? dirname(folder) : undefined;
}

/**
 * Opens the parts of a model beside its network. A model that lacks a part can be opened and counted; its `missingParts` says what
 * drawing needs.
 *
 * @param network.path of the network's file
 * @param network.file its content, which may hold other parts, too
 * @param network.parts the network, with its weights
 * @param opened receives the files that are opened
 * @throws UsageError if an option is wrong; FormatError if a part is damaged, or does not fit the network
 */
export async function openSplitModel(
  row: SplitModel,
  { path, file, parts }: NetworkFile,
  options: OpenModelOptions,
  opened: Closable[],
): Promise<ImageModel> {
  refuseOptions(path, options, splitOptions(row));
  const { network } = parts;
  const root = rootOf(path);
  const title = row.title ?? familyOf(network).title;
  const wanted = wantedEncoders(row.encoders, options, title);
  const inside = encodersInside(row.encoders, wanted, file);
  const lacking = wanted.filter((name) => !inside.encoders[name]);
  const paths = options.textEncoders ?? (await encodersBeside(row, lacking, root, network));
  const beside = await openGivenEncoders(
    { title, table: row.encoders, wanted, usual: wanted.map((name) => row.files[name]!) },
    paths,
    opened,
  );
  const needsVae = row.files["vae"] !== undefined;
  const given = joinedEncoders(inside, beside);
  const own = needsVae && options.vae === undefined ? autoencoderInside(file, network) : undefined;
  const vae = needsVae && !own ? (options.vae ?? (await vaeBeside(row, root, network))) : undefined;
  const other = vae === undefined ? undefined : await openVAE(vaeAt(vae), network);
  if (other) opened.push(other.file);
  const decoder = own ?? other;
  const place = diskFolder(options.tokenizers ?? root ?? dirname(resolve(path)));
  return assembled(row, { path, root, parts, given, decoder, tokenizers: place }, options);
}

/** An autoencoder on disk, as `openAutoencoder` takes its path. */
export function vaeAt(path: string): GivenVAE {
  return { name: path, open: (wanted) => openAutoencoder(path, wanted) };
}

/** The files of these text encoders in the folder of a model's parts. */
async function encodersBeside(
  row: SplitModel,
  names: readonly string[],
  root: string | undefined,
  network: ImageModel["network"],
): Promise<readonly string[]> {
  const widths = row.widths(network);
  const files = await filesBeside(root, folders.encoders);
  const found: string[] = [];
  for (const name of names) {
    const kinds = await filtered(
      files,
      (file) => encoderWeightsIn(row.encoders, file)[name] !== undefined,
    );
    const fitting = await filtered(kinds, (file) => {
      const own = encoderWeightsIn(row.encoders, file)[name]!;
      return widths[name] === undefined || encoderWidth(own) === widths[name];
    });
    // One of the wrong width is opened too, so that an error says what is wrong with it.
    const chosen = single(
      fitting.length > 0 ? fitting : kinds.slice(0, 1),
      row.files[name]!,
      "--text-encoders (textEncoders)",
    );
    if (chosen !== undefined && !found.includes(chosen)) found.push(chosen);
  }
  return found;
}

/** The file of the autoencoder in the folder of a model's parts. */
async function vaeBeside(
  row: SplitModel,
  root: string | undefined,
  network: ImageModel["network"],
): Promise<string | undefined> {
  const files = await filesBeside(root, folders.vae);
  const fitting: string[] = [];
  for (const file of files.length > 1 ? files : []) {
    const opened = await openAutoencoder(file, familyOf(network).autoencoder);
    await opened.file.close();
    if (codecShape(opened).latents === network.channels) fitting.push(file);
  }
  return single(fitting.length > 0 ? fitting : files.slice(0, 1), row.files["vae"]!, "--vae (vae)");
}

async function filesBeside(
  root: string | undefined,
  names: readonly string[],
): Promise<readonly string[]> {
  if (root === undefined) return [];
  const all: string[] = [];
  for (const name of names) all.push(...(await weightFiles(join(root, name))));
  return all;
}

/** The files whose headers pass a test. */
async function filtered(
  files: readonly string[],
  passes: (file: Weights) => boolean,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const file of files) {
    const passed = await closing(await openSafetensorsFile(file), async (opened) => passes(opened));
    if (passed) found.push(file);
  }
  return found;
}

/**
 * The one file of a part, or among several the one with the usual name.
 *
 * @throws UsageError if several fit and none has this name
 */
function single(files: readonly string[], usual: string, option: string): string | undefined {
  const named = files.find((file) => basename(file) === usual);
  if (named !== undefined || files.length < 2) return named ?? files[0];
  throw new UsageError(
    `${enumerated(files.map((file) => basename(file)))} in ${dirname(files[0]!)} all fit; give one of them as ${option}.`,
  );
}
