/** Sample grids of a model in training. */
import type { Backend } from "../engine/runtime/backend.ts";
import { pictureGrid } from "../pictures/grid.ts";
import type { Picture } from "../pictures/picture.ts";
import type { DrawSamples } from "../training/tasks/denoiser.ts";
import { closing, closingOnFailure } from "../weights/sources/closing.ts";
import { createPipeline } from "./open/trained-model.ts";
import { finished } from "./pipeline.ts";

/**
 * Returns a function that draws one row for each prompt or class, always with the same seeds: the `draw` that `train` of
 * `patchwise/training/node` takes.
 *
 * @example await train(config, { backend, out: "runs/garden", draw: drawSamples(backend) });
 */
export function drawSamples(backend: Backend): DrawSamples {
  return async (model, { of, each, seed }) => {
    const { card, autoencoder } = model;
    const pipeline = await closingOnFailure(autoencoder ? [autoencoder] : [], async () =>
      createPipeline({ backend, ...model }),
    );
    const byText = card.network.condition.kind === "text";
    const conditions = of ?? card.classes ?? [undefined];
    return closing({ close: () => pipeline.dispose() }, async () => {
      const pictures: Picture[] = [];
      for (const condition of conditions) {
        const asked = byText ? { prompt: condition ?? "" } : { class: condition };
        pictures.push(...(await finished(pipeline.generate({ ...asked, count: each, seed }))));
      }
      return pictureGrid(pictures, each);
    });
  };
}
