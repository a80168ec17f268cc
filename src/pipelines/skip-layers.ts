/** The setting of skip-layer guidance: its type, and its check against a model. */
import * as z from "zod";
import { UsageError } from "../engine/errors.ts";
import { skippableLayers } from "../models/network.ts";
import type { ImageModel } from "./image-model.ts";
import { setting } from "./setting.ts";

const skipLayersType = z
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
function checkedSkipLayers(value: SkipLayers, { name, network }: ImageModel): SkipLayers {
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

/** The row of the settings table. */
export const skipLayersSetting = setting({
  type: skipLayersType,
  expected:
    "an object of layers (numbers from 0), a scale of at least 0, and the shares of the steps from and to, the smaller one first",
  help: "lead away from the prediction without these layers (Stable Diffusion 3.5), such as 7,8,9",
  flags: [
    { flag: "--skip-layers <n,n…>", parse: "numbers", members: ["layers"] },
    {
      flag: "--skip-guidance <g>",
      parse: "number",
      members: ["scale"],
      help: "scale of leading away from --skip-layers (default: 2.8)",
    },
    {
      flag: "--skip-steps <from,to>",
      parse: "pair",
      members: ["from", "to"],
      help: "the shares of the steps between which --skip-layers applies (default: 0.01,0.2)",
    },
  ],
  only: "continuous",
  forModel: checkedSkipLayers,
});
