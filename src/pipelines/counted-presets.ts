/** Published models besides the families' presets, as graphs whose costs can be counted without weights. */
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { mapValues } from "../engine/records.ts";
import { fromFamilies } from "../models/families.ts";
import type { CountedPreset } from "../models/family.ts";
import {
  clipText,
  type ClipTextConfig,
  clipTextPresets,
} from "../models/text-encoders/clip-text.ts";
import { qwen3, type Qwen3Config, qwen3Presets } from "../models/text-encoders/qwen3.ts";
import {
  t5Encoder,
  type T5EncoderConfig,
  t5EncoderPresets,
} from "../models/text-encoders/t5-encoder.ts";
import {
  type AutoencoderKLConfig,
  autoencoderKLPresets,
  latentFactor,
} from "../models/coders/autoencoder-kl-config.ts";
import {
  decodeLatents,
  encodeImages,
  scaleLatents,
  unscaleLatents,
} from "../models/coders/autoencoder-kl.ts";
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

/** A CLIP text encoder, on as many tokens as it has positions. */
export const countedClip = (config: ClipTextConfig): CountedPreset => ({
  of: "text",
  tokens: config.positions,
  graph() {
    const ids = idsOf(config.positions);
    const { penultimate, projected } = clipText(createParams(), { ids }, config);
    return graphOf({ penultimate, projected });
  },
});

export const countedT5 = (config: T5EncoderConfig): CountedPreset => ({
  of: "text",
  tokens: TEXT_TOKENS,
  graph: () => graphOf({ hidden: t5Encoder(createParams(), { ids: idsOf(TEXT_TOKENS) }, config) }),
});

export const countedQwen3 = (config: Qwen3Config): CountedPreset => ({
  of: "text",
  tokens: TEXT_TOKENS,
  graph() {
    const ids = idsOf(TEXT_TOKENS);
    const [hidden] = qwen3(createParams(), { ids }, config, [config.depth]);
    return graphOf({ hidden: hidden! });
  },
});

/** Encoder and decoder of pictures, on 256×256 pixels. */
export const countedAutoencoder = (config: AutoencoderKLConfig): CountedPreset => ({
  of: "image",
  tokens: (PICTURE / latentFactor(config)) ** 2,
  graph() {
    const params = createParams();
    const images = input("images", [batch, config.inputs, PICTURE, PICTURE]);
    const { mean } = encodeImages(params, images, config);
    const latents = unscaleLatents(params, scaleLatents(params, mean, config), config);
    return graphOf({ images: decodeLatents(params, latents, config) });
  },
});

/** By name; they follow `registerFamily`. */
export const countedPresets = fromFamilies((all): ReadonlyMap<string, CountedPreset> => {
  const clips: Counted = mapValues(clipTextPresets, countedClip);
  const t5s: Counted = mapValues(t5EncoderPresets, countedT5);
  const qwens: Counted = mapValues(qwen3Presets, countedQwen3);
  const autoencoders: Counted = mapValues(autoencoderKLPresets, countedAutoencoder);
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
  const known = [clips, t5s, qwens, ...own, autoencoders, vqgans, videos];
  return new Map(known.flatMap((presets) => Object.entries(presets)));
});
