/** Sample grids of a model in training. */
import type { Backend } from "../engine/runtime/backend.ts";
import { clipGrid, clipSheet, pictureGrid, sampleScale } from "../pictures/grid.ts";
import type { DrawSamples } from "../training/tasks/samples.ts";
import { closing, closingOnFailure } from "../weights/sources/closing.ts";
import { createPipeline } from "./open/trained-model.ts";
import { type DrawnPicture, finished } from "./pipeline.ts";

/**
 * Returns a function that draws one row for each prompt or class, of clips one row for each clip, always with the same seeds: the `draw` that `train` of
 * `patchwise/training/node` takes.
 *
 * @param drawn called with the pictures of each grid, row by row, and the prompts or classes of its rows
 * @example await train(config, { backend, out: "runs/garden", draw: drawSamples(backend) });
 */
export function drawSamples(
  backend: Backend,
  drawn?: (pictures: readonly DrawnPicture[], of: readonly string[] | undefined) => Promise<void>,
): DrawSamples {
  return async (model, { of, each, seed }) => {
    const { card, autoencoder } = model;
    const pipeline = await closingOnFailure(autoencoder ? [autoencoder] : [], async () =>
      createPipeline({ backend, ...model }),
    );
    const byText = card.network.condition.kind === "text";
    const conditions = of ?? [undefined];
    const askedOf = (condition: string | undefined) =>
      byText ? { prompt: condition ?? "" } : { class: condition };
    return closing({ close: () => pipeline.dispose() }, async () => {
      const pictures: DrawnPicture[] = [];
      for (const condition of conditions) {
        const asked = askedOf(condition);
        pictures.push(...(await finished(pipeline.generate({ ...asked, count: each, seed }))));
      }
      await drawn?.(pictures, of);
      const clips = pictures.flatMap(({ clip }) => clip ?? []);
      if (clips.length === 0) {
        return pictureGrid(pictures, each, { scale: sampleScale(card.picture), titles: of });
      }
      const { fps } = pipeline.settings({ ...askedOf(conditions[0]), count: each, seed });
      return { ...clipSheet(clips), clip: { clip: clipGrid(clips, each), fps } };
    });
  };
}
