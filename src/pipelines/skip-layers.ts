/** The setting of skip-layer guidance: its type, and its check against a model. */
import * as z from "zod";
import { UsageError } from "../engine/errors.ts";
import { skippableLayers } from "../models/network.ts";
import type { ImageModel } from "./image-model.ts";

export const skipLayersType = z
  .strictObject({
    layers: z.array(z.int().min(0)).min(1).readonly(),
    scale: z.number().min(0).default(2.8),
    from: z.number().min(0).default(0.01),
    to: z.number().min(0).max(1).default(0.2),
  })
  .readonly()
  .refine(({ from, to }) => from < to);

/** Skip-layer guidance, with which Stable Diffusion 3.5 is drawn. */
export type SkipLayers = z.output<typeof skipLayersType>;

/** @throws UsageError for a model that skips no layers, or has none of such a number */
export function checkedSkipLayers(value: SkipLayers, { name, network }: ImageModel): SkipLayers {
  const count = skippableLayers(network);
  if (count === 0) {
    throw new UsageError(
      `skipLayers does not apply to ${name}: it is a ${network.kind}, and only an mmdit such as Stable Diffusion 3 can skip layers; leave it out.`,
    );
  }
  const wrong = value.layers.find((layer) => layer >= count);
  if (wrong !== undefined) {
    throw new UsageError(
      `skipLayers must be layers from 0 to ${count - 1} for ${name}, got ${wrong}.`,
    );
  }
  return { ...value, layers: [...new Set(value.layers)].toSorted((a, b) => a - b) };
}
