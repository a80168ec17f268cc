/**
 * What Stable Diffusion 3 is told by a prompt (Esser et al., 2024, section 4): the tokens of two CLIPs side by side in the
 * channels, behind them those of T5, and the two pooled texts side by side. What of an encoder that is left out is zeros.
 */
import type { Conditions } from "../../../diffusion/denoiser.ts";
import { FormatError } from "../../../engine/errors.ts";
import { input } from "../../../engine/graph/functional.ts";
import { graphOf } from "../../../engine/graph/graph.ts";
import { type NdArray, ndarray } from "../../../engine/arrays/ndarray.ts";
import type { WeightSource } from "../../../engine/runtime/backend.ts";
import { batch } from "../../../engine/graph/shape.ts";
import { clipText, type ClipTextConfig } from "../../../models/text-encoders/clip-text.ts";
import { t5Encoder, type T5EncoderConfig } from "../../../models/text-encoders/t5-encoder.ts";
import { createParams } from "../../../nn/params.ts";
import type { Tokenizer } from "../../../text/tokenizer.ts";
import type { PromptEmbedder, RunStage, Stage } from "../../image-model.ts";

export interface TextEncoder<Config> {
  readonly config: Config;
  readonly weights: WeightSource;
  readonly tokenizer: Tokenizer;
}

export interface SD3Encoders {
  readonly "clip-l"?: TextEncoder<ClipTextConfig> | undefined;
  readonly "clip-g"?: TextEncoder<ClipTextConfig> | undefined;
  readonly t5?: TextEncoder<T5EncoderConfig> | undefined;
}

export type SD3EncoderName = keyof SD3Encoders;

/** What a person calls the encoders. */
export const sd3EncoderTitles: { readonly [N in SD3EncoderName]: string } = {
  "clip-l": "CLIP-L",
  "clip-g": "CLIP-G",
  t5: "T5",
};

export const sd3EncoderNames = Object.keys(sd3EncoderTitles) as SD3EncoderName[];

/** Tokens that a CLIP reads. */
export const CLIP_TOKENS = 77;

export interface SD3Text {
  /** Channels of the context. */
  readonly width: number;
  /** Channels of the pooled text. */
  readonly pooled: number;
  /** Tokens of T5, or the zeros in their place. */
  readonly t5Tokens: number;
  /** Whether CLIP-L's pooled text goes through its projection: in diffusers it does, in Stability's code it does not. */
  readonly projectedL: boolean;
}

/**
 * @returns an embedder whose conditions are `context` [1, 77 + t5Tokens, width] and `pooled` [1, pooled]
 * @throws FormatError when the encoders are not as wide as the network takes them
 */
export function sd3Embedder(encoders: SD3Encoders, text: SD3Text): PromptEmbedder {
  checkWidths(encoders, text);
  const clips = (["clip-l", "clip-g"] as const).map((name) => {
    const encoder = encoders[name];
    const projected = name === "clip-g" || text.projectedL;
    return encoder && { encoder, stage: clipStage(sd3EncoderTitles[name], encoder, projected) };
  });
  const t5 = encoders.t5 && { encoder: encoders.t5, stage: t5Stage(encoders.t5, text.t5Tokens) };
  // Where the first CLIP is left out, its channels are what the second one leaves.
  const widthL =
    encoders["clip-l"]?.config.width ?? text.pooled - (encoders["clip-g"]?.config.width ?? 0);
  return {
    encoders: [...clips, t5].flatMap((each) => each?.stage ?? []),
    unheard: (prompt) =>
      // Both CLIPs read the same tokens.
      (
        [
          ["CLIP", encoders["clip-l"] ?? encoders["clip-g"], CLIP_TOKENS],
          ["T5", encoders.t5, text.t5Tokens],
        ] as const
      ).flatMap(([by, encoder, length]) => {
        const words = encoder?.tokenizer.encode(prompt, length).lost.trim() ?? "";
        return words === "" ? [] : [{ by, length, words }];
      }),
    async embed(prompts, run) {
      const length = CLIP_TOKENS + text.t5Tokens;
      const context = prompts.map(() => new Float32Array(length * text.width));
      const pooled = prompts.map(() => new Float32Array(text.pooled));
      for (const [i, clip] of clips.entries()) {
        if (!clip) continue;
        const told = await encoded(clip.stage, clip.encoder, prompts, CLIP_TOKENS, run);
        const column = i === 0 ? 0 : widthL;
        for (const row of prompts.keys()) {
          place(told["hidden"]!, row, context[row]!, { column, width: text.width });
          place(told["pooled"]!, row, pooled[row]!, { column, width: text.pooled });
        }
      }
      if (t5) {
        const told = await encoded(t5.stage, t5.encoder, prompts, text.t5Tokens, run);
        for (const row of prompts.keys()) {
          const target = context[row]!.subarray(CLIP_TOKENS * text.width);
          place(told["hidden"]!, row, target, { column: 0, width: text.width });
        }
      }
      return prompts.map((_, row): Conditions => ({
        context: { dtype: "float32", shape: [1, length, text.width], data: context[row]! },
        pooled: { dtype: "float32", shape: [1, text.pooled], data: pooled[row]! },
      }));
    },
  };
}

function checkWidths(encoders: SD3Encoders, { width, pooled }: SD3Text): void {
  const l = encoders["clip-l"]?.config.width;
  const g = encoders["clip-g"]?.config.width;
  const t5 = encoders.t5?.config.width;
  const both = (l ?? 0) + (g ?? 0);
  if (l !== undefined && g !== undefined ? both !== pooled : both > pooled) {
    throw new FormatError(
      `The network takes pooled texts of ${pooled} numbers, but CLIP-L gives ${l ?? 0} and CLIP-G ${g ?? 0}; give the text encoders that belong to it.`,
    );
  }
  if (both > width || (t5 !== undefined && t5 !== width)) {
    throw new FormatError(
      `The network takes tokens of ${width} numbers, but ${both > width ? `the CLIPs give ${both}` : `T5 gives ${t5}`}; give the text encoders that belong to it.`,
    );
  }
}

function clipStage(
  name: string,
  { config, weights }: TextEncoder<ClipTextConfig>,
  projected: boolean,
): Stage {
  return {
    name,
    kind: "text encoder",
    weights,
    graph: () => {
      const ids = input("ids", [batch, CLIP_TOKENS], "int64");
      const text = clipText(createParams(), { ids }, config);
      return graphOf({
        hidden: text.penultimate,
        pooled: projected ? text.projected : text.pooled,
      });
    },
  };
}

function t5Stage({ config, weights }: TextEncoder<T5EncoderConfig>, length: number): Stage {
  return {
    name: sd3EncoderTitles.t5,
    kind: "text encoder",
    weights,
    remedy: "leave it out with --without t5",
    graph: () => {
      const ids = input("ids", [batch, length], "int64");
      return graphOf({ hidden: t5Encoder(createParams(), { ids }, config) });
    },
  };
}

async function encoded(
  stage: Stage,
  { tokenizer }: Pick<TextEncoder<unknown>, "tokenizer">,
  prompts: readonly string[],
  length: number,
  run: RunStage,
): Promise<Readonly<Record<string, NdArray>>> {
  const ids = prompts.flatMap((prompt) => Array.from(tokenizer.encode(prompt, length).ids));
  return run(stage, { ids: ndarray("int64", [prompts.length, length], ids) });
}

/** One row of [B, …, C], token by token, into tokens of another width from a column on. */
function place(
  { shape, data }: NdArray,
  row: number,
  target: Float32Array,
  { column, width }: { readonly column: number; readonly width: number },
): void {
  const channels = shape.at(-1)!;
  const values = data as Float32Array;
  const tokens = values.length / channels / shape[0]!;
  for (let token = 0; token < tokens; token++) {
    const from = (row * tokens + token) * channels;
    target.set(values.subarray(from, from + channels), token * width + column);
  }
}
