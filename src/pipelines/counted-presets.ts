/** Published models beside the denoisers of continuous pictures, as graphs whose costs can be told without weights. */
import { input } from "../engine/graph/functional.ts";
import { type Graph, graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { clipText, clipTextPresets } from "../models/text-encoders/clip-text.ts";
import { paella, paellaPresets } from "../models/paella/paella.ts";
import { paellaV1, paellaV1Presets } from "../models/paella/paella-v1.ts";
import { t5Encoder, t5EncoderPresets } from "../models/text-encoders/t5-encoder.ts";
import { decodeQuantized, encodeTokens, vqganPresets } from "../models/coders/vqgan.ts";
import { createParams } from "../nn/params.ts";

export interface CountedPreset {
  /** What one pass is about. */
  readonly of: "text" | "image";
  /** Of it. */
  readonly tokens: number;
  readonly graph: () => Graph;
}

/** As many as it was trained on. */
const T5_TOKENS = 512;
/** Tokens along a side of a picture of 256×256. */
const [V1_SIDE, V3_SIDE, PICTURE] = [32, 64, 256];
/** Of ByT5, which reads bytes. */
const TEXT_BYTES = 128;

const idsOf = (tokens: number) => input("ids", [batch, tokens], "int64");
const placesOf = (side: number) => input("tokens", [batch, side, side], "int64");

export const countedPresets: ReadonlyMap<string, CountedPreset> = new Map([
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
  ...Object.entries(paellaV1Presets).map(([name, config]): [string, CountedPreset] => [
    name,
    {
      of: "image",
      tokens: V1_SIDE ** 2,
      graph: () => {
        const told = {
          share: input("share", [batch]),
          clip: input("clip", [batch, config.clipWidth]),
        };
        const inputs = { tokens: placesOf(V1_SIDE), ...told };
        return graphOf({ logits: paellaV1(createParams(), inputs, config) });
      },
    },
  ]),
  ...Object.entries(paellaPresets).map(([name, config]): [string, CountedPreset] => [
    name,
    {
      of: "image",
      tokens: V3_SIDE ** 2,
      graph: () => {
        const inputs = {
          tokens: placesOf(V3_SIDE),
          share: input("share", [batch]),
          text: input("text", [batch, TEXT_BYTES, config.textWidth]),
          clipText: input("clipText", [batch, config.clipWidth]),
          clipImage: input("clipImage", [batch, config.clipWidth]),
        };
        return graphOf({ logits: paella(createParams(), inputs, config) });
      },
    },
  ]),
  ...Object.entries(vqganPresets).map(([name, config]): [string, CountedPreset] => [
    name,
    {
      of: "image",
      tokens: (PICTURE / 2 ** config.levels) ** 2,
      graph: () => {
        const params = createParams();
        const images = input("images", [batch, 3, PICTURE, PICTURE]);
        const { quantized } = encodeTokens(params, images, config);
        return graphOf({ images: decodeQuantized(params, quantized, config) });
      },
    },
  ]),
]);
