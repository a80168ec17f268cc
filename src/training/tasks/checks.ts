/** Checks that the parts of a training fit each other, made before anything is trained. */
import { didYouMean, firstOf, quote, UsageError } from "../../engine/errors.ts";
import { nameFinder } from "../../engine/names.ts";
import { tokenSampler } from "../../models/card.ts";
import { codecShape, type ImageCodec } from "../../models/coders/image-codec.ts";
import type { NetworkConfig } from "../../models/network.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import type { DenoiserConfig } from "../config/config.ts";
import type { DataFacts } from "../config/network.ts";
import type { DataSource } from "../loop.ts";

/**
 * Checks that the network can draw the samples that a config asks for.
 *
 * @param of prompts, or classes by number or by name in any case
 * @throws UsageError that names the first one that it cannot draw
 */
export function requireKnownSamples(
  of: readonly string[] = [],
  { condition }: Pick<NetworkConfig, "condition">,
  names: readonly string[] = [],
): void {
  const [first] = of;
  if (first === undefined || condition.kind === "text") return;
  if (condition.kind === "none") {
    throw new UsageError(
      `samples.of has ${quote(first)}, but the model takes neither prompts nor classes; leave it out.`,
    );
  }
  const known = new Set(names.map((name) => name.toLowerCase()));
  const isNumber = (name: string) => /^\d+$/.test(name) && Number(name) < condition.classes;
  const wrong = of.find((name) => !known.has(name.trim().toLowerCase()) && !isNumber(name.trim()));
  if (wrong === undefined) return;
  throw new UsageError(
    `samples.of has ${quote(wrong)}, which is not a class of the data; ${didYouMean(wrong, names, "it has")}`,
  );
}

/** @throws UsageError for settings that would have no effect on a network with this condition */
export function requireCondition(
  { sampling, training }: Pick<DenoiserConfig, "sampling" | "training">,
  { condition }: Pick<NetworkConfig, "condition">,
): void {
  if (condition.kind === "none" && (sampling.guidance ?? 1) !== 1) {
    throw new UsageError(
      `sampling.guidance is ${sampling.guidance}, but the model takes neither prompts nor classes that it could be guided by; leave it out.`,
    );
  }
  if (condition.kind !== "text" && training.unknownWords !== undefined) {
    throw new UsageError(
      `training.unknownWords is ${training.unknownWords}, but the model takes no prompts; leave it out.`,
    );
  }
}

/** @throws UsageError when a codec would have to encode a part of a latent */
export function requireWholeLatents(
  { height, width }: PictureShape,
  coder: ImageCodec,
  name: string,
  otherwise = "",
): void {
  const { factor } = codecShape(coder);
  if (height % factor === 0 && width % factor === 0) return;
  const near = [height, width].map((side) => Math.max(1, Math.round(side / factor)) * factor);
  throw new UsageError(
    `picture.size is ${height}×${width}, but ${name} makes one latent of ${factor}×${factor} pixels; give multiples of ${factor}, such as ${near.join("×")}${otherwise}.`,
  );
}

/**
 * Matches the condition of a data set to that of a network: captions, or classes by their names.
 *
 * @param known the names of the network's classes
 * @param owner how errors name what has these classes, such as "The base emoji"
 * @returns the network's class for each class of the data; undefined for a network without classes
 * @throws UsageError when the data lacks captions or classes, or has a class that the network does not have
 */
export function matchCondition(
  { condition }: Pick<NetworkConfig, "condition">,
  { name, captioned, classes }: DataFacts,
  known: readonly string[] = [],
  owner = "The training",
): readonly number[] | undefined {
  if (condition.kind === "text" && !captioned) {
    throw new UsageError(
      `${owner} takes prompts, but ${name} has no captions; add them in metadata.jsonl.`,
    );
  }
  if (condition.kind !== "class") return undefined;
  if (!classes) {
    throw new UsageError(
      `${owner} takes classes, but ${name} has none; sort the pictures into one folder for each class.`,
    );
  }
  const [indices, find] = [new Map(known.map((each, i) => [each, i])), nameFinder(known)];
  return classes.map((each) => {
    const index = indices.get(find(each) ?? each);
    if (index !== undefined) return index;
    throw new UsageError(
      `${owner} has no class ${quote(each)}, but ${name} has one; name the folders by the classes of ${owner.replace(/^The (\w+).*/, "the $1")}: ${firstOf(known, 5)}.`,
    );
  });
}

/**
 * Checks that the diffusion process and the sampler fit the data.
 *
 * @throws UsageError when codes meet a process of continuous values or the reverse, or settings of the process exclude each other
 */
export function requireProcess(
  {
    diffusion,
    latents,
    sampling: { sampler, temperature },
  }: Pick<DenoiserConfig, "diffusion" | "latents" | "sampling">,
  { coder }: Pick<DataSource, "coder">,
): void {
  const { process } = diffusion;
  if (
    diffusion.process === "discrete" &&
    diffusion.zeroTerminalSNR &&
    diffusion.weighting?.kind === "min-snr"
  ) {
    throw new UsageError(
      "diffusion.weighting min-snr gives pure noise a weight of 0, so the model would not learn the step at which zeroTerminalSNR makes it begin to draw; leave one of them out.",
    );
  }
  if (coder?.kind === "vq" && process !== "tokens") {
    throw new UsageError(
      `latents.autoencoder ${latents!.autoencoder} is a VQGAN, but diffusion.process is ${process}; set it to tokens, or give an autoencoder of continuous latents.`,
    );
  }
  if (coder?.kind !== "vq" && process === "tokens") {
    throw new UsageError(
      `diffusion.process is tokens, but ${latents ? `latents.autoencoder ${latents.autoencoder} is not a VQGAN` : "there is no VQGAN"}; set latents.autoencoder to one that patchwise train wrote, or set another process.`,
    );
  }
  if (temperature && process !== "tokens") {
    throw new UsageError(
      `sampling.temperature is given, but diffusion.process is ${process}, which draws no codes; leave it out.`,
    );
  }
  if (sampler !== undefined && (sampler === tokenSampler) !== (process === "tokens")) {
    throw new UsageError(
      `sampling.sampler is ${sampler}, which cannot sample a process of ${process}; leave it out.`,
    );
  }
}
