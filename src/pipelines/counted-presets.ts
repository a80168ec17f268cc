/** Published models besides the families' presets, as graphs whose costs can be counted without weights. */
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { fromFamilies } from "../models/families.ts";
import type { CountedPreset } from "../models/family.ts";
import { clipText, clipTextPresets } from "../models/text-encoders/clip-text.ts";
import { t5Encoder, t5EncoderPresets } from "../models/text-encoders/t5-encoder.ts";
import { decodeQuantized, encodeToCodes, vqganPresets } from "../models/coders/vqgan.ts";
import { createParams } from "../nn/params.ts";

/** The number of tokens that T5 was trained on. */
const T5_TOKENS = 512;
/** Pixels along a side of the counted picture. */
const PICTURE = 256;

const idsOf = (tokens: number) => input("ids", [batch, tokens], "int64");

/** By name; they follow `registerFamily`. */
export const countedPresets = fromFamilies(
  (all): ReadonlyMap<string, CountedPreset> =>
    new Map([
      ...Object.entries(clipTextPresets).map(([name, config]): [string, CountedPreset] => [
        name,
        {
          of: "text",
          tokens: config.positions,
          graph: () => {
            const ids = idsOf(config.positions);
            const { penultimate, projected } = clipText(createParams(), { ids }, config);
            return graphOf({ penultimate, projected });
          },
        },
      ]),
      ...Object.entries(t5EncoderPresets).map(([name, config]): [string, CountedPreset] => [
        name,
        {
          of: "text",
          tokens: T5_TOKENS,
          graph: () =>
            graphOf({ hidden: t5Encoder(createParams(), { ids: idsOf(T5_TOKENS) }, config) }),
        },
      ]),
      ...all.flatMap(({ counted = {} }) => Object.entries(counted)),
      ...Object.entries(vqganPresets).map(([name, config]): [string, CountedPreset] => [
        name,
        {
          of: "image",
          tokens: (PICTURE / 2 ** config.levels) ** 2,
          graph: () => {
            const params = createParams();
            const images = input("images", [batch, 3, PICTURE, PICTURE]);
            const { quantized } = encodeToCodes(params, images, config);
            return graphOf({ images: decodeQuantized(params, quantized, config) });
          },
        },
      ]),
    ]),
);
