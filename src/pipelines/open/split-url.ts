/** Single files of networks behind a URL, with the addresses of what belongs to them. */
import { UsageError } from "../../engine/errors.ts";
import { pick } from "../../engine/records.ts";
import {
  autoencoderCheckpointConfig,
  autoencoderIn,
} from "../../models/coders/autoencoder-kl-checkpoint.ts";
import { familyOf } from "../../models/families.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type Closable, closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { urlFolder } from "../../weights/sources/folder-url.ts";
import type { UrlOptions } from "../../weights/sources/url.ts";
import { type ImageModel, tracedForDrawing } from "../image-model.ts";
import { openVAE } from "./diffusers.ts";
import { type OpenModelOptions, refuseOptions } from "./options.ts";
import { publishedModel, unwrapped } from "./published-checkpoint.ts";
import { type SplitModel, splitModels } from "./split-models.ts";
import { assembled, enumerated, type GivenEncoders, splitOptions } from "./split-parts.ts";
import { encodersOfWeights, encoderWeightsIn, wantedEncoders } from "./text-encoders.ts";
import { autoencoderInside, encodersInside, joinedEncoders, networkIn } from "./whole-file.ts";

/** The addresses of the parts that belong to the file of a network. */
export interface UrlParts {
  /** Files of the text encoders. */
  readonly textEncoders?: readonly string[] | undefined;
  /** The file of the autoencoder, for networks of latents. */
  readonly vae?: string | undefined;
  /** The folder with the tokenizers' folders, or of the only tokenizer; a GGUF file of an encoder has its own. */
  readonly tokenizers?: string | undefined;
}

/** Returns true if an address is that of a file of weights. */
export function isFileAddress(address: string | URL): boolean {
  return /\.(safetensors|gguf)$/i.test(new URL(address, baseAddress()).pathname);
}

function baseAddress(): string | undefined {
  return globalThis.location?.href;
}

/** Splits an address into its folder and its last part. */
function placeOf(address: string | URL): { readonly folder: URL; readonly file: string } {
  const folder = new URL(address, baseAddress());
  const file = decodeURIComponent(folder.pathname.replace(/^.*\//, ""));
  folder.pathname = folder.pathname.replace(/[^/]*$/, "");
  return { folder, file };
}

function weightsAt(address: string | URL, loading: UrlOptions): Promise<Weights> {
  const { folder, file } = placeOf(address);
  return urlFolder(folder, loading).weights(file);
}

/**
 * Opens the file of a network. Without the parts that it needs, the model's `missingParts` says which they are.
 *
 * @throws FormatError if a file is damaged, or of a model that is not known; UsageError if a part is not what it is given as
 */
export async function openFileUrl(
  address: string | URL,
  options: OpenModelOptions,
  loading: UrlOptions,
): Promise<ImageModel> {
  const file = unwrapped(await weightsAt(address, loading));
  return closingOnFailure([file], async (opened) => {
    const { stored, ...published } = publishedModel(networkIn(file));
    const { network } = published;
    const weights = checkedWeights(tracedForDrawing(network).params, stored);
    const close = () => closeAll(opened);
    const row = published.missingParts === undefined ? splitModels[network.kind] : undefined;
    refuseOptions(file.name, options, row ? splitOptions(row) : ["vae"]);
    const vae = options.vae;
    const decoder =
      vae === undefined
        ? autoencoderInside(file, network)
        : await openVAE(
            { name: vae, open: (wanted) => autoencoderAt(vae, loading, wanted) },
            network,
          );
    if (decoder && vae !== undefined) opened.push(decoder.file);
    if (!row) return { name: placeOf(address).file, ...published, weights, decoder, close };
    const title = row.title ?? familyOf(network).title;
    const wanted = wantedEncoders(row.encoders, options, title);
    const places = options.textEncoders ?? [];
    const beside = await encodersAt({ row, title, wanted }, places, loading, opened);
    const given = joinedEncoders(encodersInside(row.encoders, wanted, file), beside);
    const { folder } = placeOf(address);
    const tokenizers = urlFolder(options.tokenizers ?? new URL("..", folder), loading);
    const parts = { network, weights, close };
    const path = placeOf(address).folder.pathname + placeOf(address).file;
    return assembled(row, { path, root: undefined, parts, given, decoder, tokenizers }, options);
  });
}

async function autoencoderAt(
  address: string,
  loading: UrlOptions,
  wanted: Parameters<typeof autoencoderCheckpointConfig>[1],
) {
  const file = await weightsAt(address, loading);
  return closingOnFailure([file], async () =>
    autoencoderIn(file, autoencoderCheckpointConfig(file, wanted)),
  );
}

/** @throws UsageError if a file holds no encoder of the model */
async function encodersAt(
  {
    row,
    title,
    wanted,
  }: { readonly row: SplitModel; readonly title: string; readonly wanted: readonly string[] },
  addresses: readonly string[],
  loading: UrlOptions,
  opened: Closable[],
): Promise<GivenEncoders> {
  const files: Record<string, Weights> = {};
  for (const address of addresses) {
    const weights = await weightsAt(address, loading);
    opened.push(weights);
    const found = encoderWeightsIn(row.encoders, weights);
    if (Object.keys(found).length === 0) {
      const usual = Object.keys(row.encoders).map((name) => row.files[name]!);
      throw new UsageError(
        `${address} holds no text encoder of ${title}; give ${enumerated(usual)}.`,
      );
    }
    Object.assign(
      files,
      pick(found, (name) => wanted.includes(name)),
    );
  }
  return { encoders: encodersOfWeights(row.encoders, files), files };
}
