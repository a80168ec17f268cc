/**
 * Stable Diffusion 3 in a single file under Stability's names, which holds the network alone, the autoencoder too, or also the
 * text encoders; keys and shapes show which. What the file lacks comes from elsewhere on disk.
 */
import { basename, dirname, extname, resolve } from "node:path";
import { diffusersScheduler } from "../../diffusion/diffusers/schedulers.ts";
import { pick } from "../../engine/records.ts";
import { autoencoderIn } from "../../models/coders/autoencoder-kl-checkpoint.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { fieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { weightsUnder, weightsWhere } from "../../weights/views.ts";
import { type Closable, closeAll } from "../../weights/sources/closing.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import { type ImageModel, tracedForDrawing } from "../image-model.ts";
import { continuousProcess } from "../process.ts";
import { type GivenVAE, openVAE } from "./diffusers.ts";
import { openGivenEncoders } from "./given-encoders-node.ts";
import { type OpenModelOptions, refuseOptions } from "./options.ts";
import { publishedModel } from "./published-checkpoint.ts";
import { enumerated } from "./split-parts.ts";
import { sd3Model, sd3TextEncoders } from "./sd3.ts";
import {
  encodersOfWeights,
  encoderWeightsIn,
  missingTokenizers,
  readTokenizers,
  type TextEncoderTable,
  wantedEncoders,
} from "./text-encoders.ts";

const table: TextEncoderTable = sd3TextEncoders;

/** The files of its text encoders, as they are published. */
const usual = ["clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors"];

/** The settings of Stability's own code (sd3_infer.py). */
const defaults = { steps: 40, guidance: 4.5 };
/** Number of prompt tokens that T5 reads there. */
const PROMPT_TOKENS = 77;

/** The times of the published models. Sigmas are rounded as in diffusers, with the same result. */
const scheduler = diffusersScheduler(
  "FlowMatchEulerDiscreteScheduler",
  fieldReader("Stable Diffusion 3", { shift: 3 }),
);

const process = continuousProcess({
  parameterization: scheduler.parameterization,
  sampler: "dpmpp-2m-sigma",
  levels: (steps, { shift }) => scheduler.levels(steps, { shift }),
  start: (first) => scheduler.start(first),
});

const firstBlock = "joint_blocks.0.x_block.attn.qkv.weight";
const autoencoderPrefix = "first_stage_model.";

function has({ entries }: Weights, prefix: string): boolean {
  return [...entries.keys()].some((key) => key.startsWith(prefix));
}

/**
 * What the names of the network begin with, such as "model.diffusion_model." in Stability's files or "module." in those of others;
 * undefined if there is no network.
 */
function networkPrefix({ entries }: Weights): string | undefined {
  return [...entries.keys()].find((key) => key.endsWith(firstBlock))?.slice(0, -firstBlock.length);
}

/** The network of a file, which may stand without a prefix beside other parts. */
function networkWeights(file: Weights): Weights {
  const prefix = networkPrefix(file);
  if (prefix) return weightsUnder(file, prefix);
  const others = [autoencoderPrefix, ...Object.values(table).map((encoder) => encoder.prefix)];
  return weightsWhere(file, (name) => !others.some((other) => name.startsWith(other)));
}

/** Returns true if a file holds the network of a Stable Diffusion 3. */
export function isSD3(file: Weights): boolean {
  return networkPrefix(file) !== undefined;
}

/**
 * Opens a file. A model that lacks a part can be opened and counted; its `missingParts` says what drawing needs.
 *
 * @param vae replaces the file's own autoencoder
 * @param opened the file; receives the other files that are opened
 * @throws UsageError if an option is wrong; FormatError if a part is damaged, or does not fit the others
 */
export async function openSD3File(
  path: string,
  file: Weights,
  options: OpenModelOptions,
  vae: GivenVAE | undefined,
  opened: Closable[],
): Promise<ImageModel> {
  const name = basename(path, extname(path));
  const { textEncoders = [], tokenizers = dirname(resolve(path)) } = options;
  refuseOptions(path, options, ["vae", "textEncoders", "tokenizers", "without", "promptTokens"]);
  const wanted = wantedEncoders(table, options, name);
  const isWanted = (each: string) => wanted.includes(each);
  const own = networkWeights(file);
  const { network } = publishedModel(own);
  const weights = checkedWeights(tracedForDrawing(network).params, own);
  const given = await openGivenEncoders(
    { title: "Stable Diffusion 3", table, wanted, usual },
    textEncoders,
    opened,
  );
  const encoders = {
    ...encodersOfWeights(table, pick(encoderWeightsIn(table, file), isWanted)),
    ...given.encoders,
  };
  const decoder = vae
    ? await openVAE(vae, network)
    : has(file, autoencoderPrefix)
      ? autoencoderIn(weightsUnder(file, autoencoderPrefix))
      : undefined;
  if (vae && decoder) opened.push(decoder.file);
  const close = () => closeAll(opened);
  const parts: ImageModel = { name, network, weights, process, decoder, defaults, close };
  const missing = wanted.filter((each) => !encoders[each]);
  if (missing.length > 0) {
    const titles = missing.map((each) => table[each]!.title).join(", ");
    const missingParts = `${path} holds no ${titles}; give the text encoders as --text-encoders (textEncoders), such as ${enumerated(usual)}, or draw with --without ${missing.join(" ")} (without).`;
    return { ...parts, missingParts };
  }
  const unread = await missingTokenizers(table, encoders, diskFolder(tokenizers));
  if (unread.length > 0) {
    const missingParts = `${path} holds no vocabularies, as no such file does, and ${tokenizers} has no ${unread.join(", ")}; give --tokenizers (tokenizers), a folder that has them, such as the same model in diffusers' layout.`;
    return { ...parts, missingParts };
  }
  return sd3Model(parts, {
    encoders,
    tokenizers: await readTokenizers(table, encoders, diskFolder(tokenizers)),
    promptTokens: options.promptTokens ?? PROMPT_TOKENS,
    projectedL: false,
  });
}
