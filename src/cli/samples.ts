/** Grids of what a model in training draws. */
import { pictureGrid } from "../pictures/grid.ts";
import type { Picture } from "../pictures/picture.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { finished } from "../pipelines/pipeline.ts";
import { createPipeline } from "../pipelines/open/trained-model.ts";
import type { DrawSamples } from "../training/run/train-node.ts";
import { closingOnFailure } from "../weights/sources/closing.ts";

/** One row for each prompt or class, always with the same seeds. */
export function drawSamples(backend: Backend): DrawSamples {
  return async (model, { of, each, seed }) => {
    const { card, autoencoder } = model;
    const pipeline = await closingOnFailure(autoencoder ? [autoencoder] : [], async () =>
      createPipeline({ backend, ...model }),
    );
    const byText = card.network.condition.kind === "text";
    const wishes = of ?? card.classes ?? [undefined];
    const pictures: Picture[] = [];
    try {
      for (const wish of wishes) {
        const told = byText ? { prompt: wish ?? "" } : { class: wish };
        pictures.push(...(await finished(pipeline.generate({ ...told, count: each, seed }))));
      }
    } finally {
      await pipeline.dispose();
    }
    return pictureGrid(pictures, each);
  };
}
