/** What training on clips adds to training on pictures. */
import type { Batch } from "../../data/loading/batch-reader.ts";
import type { AnyRecipe } from "../../diffusion/discrete/discrete.ts";
import type { DrawnFrames } from "../../diffusion/recipe.ts";
import { UsageError } from "../../engine/errors.ts";
import { type NetworkConfig, takesStart } from "../../models/network.ts";
import type { FramesConfig } from "../config/config.ts";
import type { FeatureSettings } from "../config/further-settings.ts";
import type { DataSource } from "../loop.ts";

/**
 * Checks that clips can be learned as a config asks.
 *
 * @throws UsageError that names the field at fault
 */
export function requireLearnableClips(
  {
    picture: { frames, fps },
    diffusion,
    training: { features },
  }: FramesConfig & {
    readonly diffusion: AnyRecipe;
    readonly training: { readonly features?: FeatureSettings | undefined };
  },
  { coder }: Pick<DataSource, "coder">,
): void {
  if (frames === undefined) {
    const given =
      diffusion.process === "flow" && diffusion.frameLevels
        ? "diffusion.frameLevels"
        : fps && "picture.fps";
    if (!given) return;
    throw new UsageError(
      `${given} is given, but the model learns still pictures, which have no frames; leave it out, or set picture.frames.`,
    );
  }
  const problem = coder
    ? "latents are those of an autoencoder of pictures; leave latents out"
    : diffusion.process !== "flow"
      ? `diffusion.process is ${diffusion.process}, which has no noise levels of frames; set it to flow`
      : diffusion.meanFlow
        ? "a mean flow has one noise level for all frames; leave diffusion.meanFlow out"
        : features && "training.features compares pictures; leave it out";
  if (!problem) return;
  throw new UsageError(`Clips of ${frames} frames cannot be learned so: ${problem}.`);
}

/** @throws UsageError if the network has a canvas that moves */
export function refuseMovingCanvas(network: NetworkConfig, name: string): void {
  if (!takesStart(network)) return;
  throw new UsageError(
    `${name} has a canvas that moves by a table of motions, which other clips do not follow, so it cannot be trained on them; leave model.canvas out, or adapt another model.`,
  );
}

/** The frames of a batch, in the times of a network. */
export function clipRows(
  { lengths }: Pick<Batch, "lengths">,
  { frames }: NetworkConfig,
  times: number,
): DrawnFrames {
  const each = frames! / times;
  return { times, lengths: lengths && Array.from(lengths, (length) => Math.ceil(length / each)) };
}
