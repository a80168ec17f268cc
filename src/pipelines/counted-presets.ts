/** Published models besides the families' presets, as graphs whose costs can be counted without weights. */
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { mapValues } from "../engine/records.ts";
import { fromFamilies } from "../models/families.ts";
import type { CountedPreset } from "../models/family.ts";
import { clipText, clipTextPresets } from "../models/text-encoders/clip-text.ts";
import { qwen3, qwen3Presets } from "../models/text-encoders/qwen3.ts";
import { t5Encoder, t5EncoderPresets } from "../models/text-encoders/t5-encoder.ts";
import { decodeQuantized, encodeToCodes, vqganPresets } from "../models/coders/vqgan.ts";
import { roundTripGraph } from "../models/coders/video-autoencoder.ts";
import {
  spatialFactor,
  videoAutoencoderPresets,
} from "../models/coders/video-autoencoder-config.ts";
import { createParams } from "../nn/params.ts";

/** The number of tokens that T5 was trained on, and that image models read of Qwen3. */
const TEXT_TOKENS = 512;
/** Pixels along a side of the counted picture. */
const PICTURE = 256;

const idsOf = (tokens: number) => input("ids", [batch, tokens], "int64");

type Counted = Readonly<Record<string, CountedPreset>>;

/** By name; they follow `registerFamily`. */
export const countedPresets = fromFamilies((all): ReadonlyMap<string, CountedPreset> => {
  const clips: Counted = mapValues(clipTextPresets, (config) => ({
    of: "text",
    tokens: config.positions,
    graph() {
      const ids = idsOf(config.positions);
      const { penultimate, projected } = clipText(createParams(), { ids }, config);
      return graphOf({ penultimate, projected });
    },
  }));
  const t5s: Counted = mapValues(t5EncoderPresets, (config) => ({
    of: "text",
    tokens: TEXT_TOKENS,
    graph: () =>
      graphOf({ hidden: t5Encoder(createParams(), { ids: idsOf(TEXT_TOKENS) }, config) }),
  }));
  const qwens: Counted = mapValues(qwen3Presets, (config) => ({
    of: "text",
    tokens: TEXT_TOKENS,
    graph() {
      const ids = idsOf(TEXT_TOKENS);
      const [hidden] = qwen3(createParams(), { ids }, config, [config.depth]);
      return graphOf({ hidden: hidden! });
    },
  }));
  const vqgans: Counted = mapValues(vqganPresets, (config) => ({
    of: "image",
    tokens: (PICTURE / 2 ** config.levels) ** 2,
    graph() {
      const params = createParams();
      const images = input("images", [batch, 3, PICTURE, PICTURE]);
      const { quantized } = encodeToCodes(params, images, config);
      return graphOf({ images: decodeQuantized(params, quantized, config) });
    },
  }));
  const videos: Counted = mapValues(videoAutoencoderPresets, (config) => ({
    of: "clip",
    tokens: (PICTURE / spatialFactor(config)) ** 2,
    graph: () => roundTripGraph(config, [PICTURE, PICTURE]),
  }));
  const own = all.map(({ counted = {} }) => counted);
  const known = [clips, t5s, qwens, ...own, vqgans, videos];
  return new Map(known.flatMap((presets) => Object.entries(presets)));
});
