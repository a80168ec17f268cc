/** The published text encoders by name, as graphs whose costs can be told without their weights. */
import { input } from "../engine/functional.ts";
import { type Graph, graphOf } from "../engine/graph.ts";
import { batch } from "../engine/shape.ts";
import { clipText, clipTextPresets } from "../models/clip-text.ts";
import { t5Encoder, t5EncoderPresets } from "../models/t5-encoder.ts";
import { createParams } from "../nn/params.ts";

export interface TextEncoderPreset {
  /** Of a text. */
  readonly tokens: number;
  readonly graph: () => Graph;
}

/** As many as it was trained on. */
const T5_TOKENS = 512;

const idsOf = (tokens: number) => input("ids", [batch, tokens], "int64");

export const textEncoderPresets: ReadonlyMap<string, TextEncoderPreset> = new Map([
  ...Object.entries(clipTextPresets).map(([name, config]): [string, TextEncoderPreset] => [
    name,
    {
      tokens: config.positions,
      graph: () => {
        const ids = idsOf(config.positions);
        const { penultimate, projected } = clipText(createParams(), { ids }, config);
        return graphOf({ penultimate, projected });
      },
    },
  ]),
  ...Object.entries(t5EncoderPresets).map(([name, config]): [string, TextEncoderPreset] => [
    name,
    {
      tokens: T5_TOKENS,
      graph: () =>
        graphOf({ hidden: t5Encoder(createParams(), { ids: idsOf(T5_TOKENS) }, config) }),
    },
  ]),
]);
