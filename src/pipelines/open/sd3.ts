/**
 * Stable Diffusion 3 as a model of its parts (Esser et al., 2024, section 4): which text encoders it has, how their outputs
 * become the conditions of its network, and how folders and files of it differ.
 */
import type { Conditions } from "../../diffusion/denoiser.ts";
import { diffusersScheduler } from "../../diffusion/diffusers/schedulers.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { FormatError, UsageError } from "../../engine/errors.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { fieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { ImageModel } from "../image-model.ts";
import { continuousProcess } from "../process.ts";
import type { OpenModelOptions } from "./options.ts";
import {
  type EncodedTexts,
  type OpenTextEncoders,
  type ReadyTextEncoder,
  type TextEncoderTable,
  textEncoding,
} from "./text-encoders.ts";

/** Width of the token embeddings of a file that is a CLIP text encoder under transformers' names. */
const clipWidth = ({ entries }: Weights) =>
  entries.get("text_model.embeddings.token_embedding.weight")?.shape[1];

/** The published CLIPs differ in their widths; others are distinguished by the file's name. */
const isClipL = (file: Weights, width = clipWidth(file)) =>
  width === 768 || (width !== undefined && width !== 1280 && /clip[-_]?l/i.test(file.name));

export const sd3TextEncoders = {
  "clip-l": {
    title: "CLIP-L",
    kind: "clip",
    reader: "CLIP",
    folder: "text_encoder",
    tokenizer: "tokenizer",
    prefix: "text_encoders.clip_l.transformer.",
    isAlone: (file: Weights) => isClipL(file),
  },
  "clip-g": {
    title: "CLIP-G",
    kind: "clip",
    reader: "CLIP",
    folder: "text_encoder_2",
    tokenizer: "tokenizer_2",
    prefix: "text_encoders.clip_g.transformer.",
    isAlone: (file: Weights) => clipWidth(file) !== undefined && !isClipL(file),
  },
  t5: {
    title: "T5",
    kind: "t5",
    reader: "T5",
    folder: "text_encoder_3",
    tokenizer: "tokenizer_3",
    prefix: "text_encoders.t5xxl.transformer.",
    isAlone: ({ entries }: Weights) =>
      [...entries.keys()].some((key) => key.startsWith("encoder.block.")),
    remedy: "leave it out with --without t5",
  },
} satisfies TextEncoderTable;

/** Number of tokens that a CLIP reads. */
const CLIP_TOKENS = 77;
/** Number of tokens that T5 was trained on; diffusers takes no more either. */
const MOST_TOKENS = 512;

/** The times of the published models. Sigmas are rounded as in diffusers, with the same result. */
const scheduler = diffusersScheduler(
  "FlowMatchEulerDiscreteScheduler",
  fieldReader("Stable Diffusion 3", { shift: 3 }),
);

/** How files without configs are drawn with: the settings of Stability's own code (sd3_infer.py). */
export function sd3FileDrawing(): Pick<ImageModel, "process" | "defaults"> {
  const process = continuousProcess({
    parameterization: scheduler.parameterization,
    sampler: "dpmpp-2m-sigma",
    levels: (steps, { shift }) => scheduler.levels(steps, { shift }),
    start: (first) => scheduler.start(first),
  });
  return { process, defaults: { steps: 40, guidance: 4.5 } };
}

/** Adds the text encoders to the parts of a file; T5 reads as many tokens of a prompt as in Stability's own code. */
export function sd3FileModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
  { promptTokens = CLIP_TOKENS }: OpenModelOptions,
): ImageModel {
  return sd3Model(parts, { encoders, tokenizers, promptTokens, projectedL: false });
}

export interface SD3Text {
  readonly encoders: OpenTextEncoders;
  readonly tokenizers: Readonly<Record<string, Tokenizer>>;
  /** Number of tokens that T5 reads. */
  readonly promptTokens: number;
  /** True if CLIP-L's pooled text goes through its projection: in diffusers it does, in Stability's code it does not. */
  readonly projectedL: boolean;
}

/**
 * Adds the text encoders to the other parts.
 *
 * @throws UsageError if T5 cannot read so many tokens; FormatError if the encoders do not fit the network
 */
export function sd3Model(
  { network, ...parts }: ImageModel,
  { encoders, tokenizers, promptTokens, projectedL }: SD3Text,
): ImageModel {
  const { condition } = network;
  if (condition.kind !== "text" || condition.pooled === undefined) {
    throw new FormatError(`${parts.name} takes no pooled text, as a Stable Diffusion 3 does.`);
  }
  if (!Number.isInteger(promptTokens) || promptTokens < 1 || promptTokens > MOST_TOKENS) {
    throw new UsageError(
      `promptTokens must be a whole number from 1 to ${MOST_TOKENS}, got ${promptTokens}.`,
    );
  }
  const { width, pooled } = condition;
  checkWidths(encoders, { width, pooled });
  // Without T5 the context holds zeros for as many tokens as it would read, as in diffusers since 2025 and in Stability's code.
  const t5Tokens = promptTokens;
  const outputsOf: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    "clip-l": { hidden: "hidden", pooled: projectedL ? "projected" : "pooled" },
    "clip-g": { hidden: "hidden", pooled: "projected" },
    t5: { hidden: "hidden" },
  };
  const ready: Record<string, ReadyTextEncoder> = {};
  for (const [name, row] of Object.entries(sd3TextEncoders)) {
    const encoder = encoders[name];
    if (!encoder) continue;
    const tokens = name === "t5" ? t5Tokens : CLIP_TOKENS;
    ready[name] = { row, encoder, tokenizer: tokenizers[name]!, tokens, outputs: outputsOf[name]! };
  }
  // If CLIP-L is left out, its channels are those that CLIP-G does not fill.
  const widthL = encoders["clip-l"]?.width ?? pooled - (encoders["clip-g"]?.width ?? 0);
  const layout = { width, pooled, length: CLIP_TOKENS + t5Tokens, widthL };
  return {
    ...parts,
    network: { ...network, condition: { ...condition, length: layout.length } },
    encoder: textEncoding(ready, (outputs, texts) => sd3Conditions(outputs, texts, layout)),
  };
}

interface ContextLayout {
  /** Channels of the context, and of the pooled text. */
  readonly width: number;
  readonly pooled: number;
  /** Tokens of the context. */
  readonly length: number;
  /** The channel at which CLIP-G begins. */
  readonly widthL: number;
}

/**
 * The conditions `context` [1, length, width] and `pooled` [1, pooled] of each text: the tokens of the two CLIPs side by side
 * in the channels, behind them those of T5, and the two pooled texts side by side. Encoders that are left out give zeros.
 */
function sd3Conditions(
  outputs: EncodedTexts,
  texts: number,
  { width, pooled: pooledWidth, length, widthL }: ContextLayout,
): readonly Conditions[] {
  return Array.from({ length: texts }, (_, row): Conditions => {
    const context = new Float32Array(length * width);
    const pooled = new Float32Array(pooledWidth);
    for (const [name, column] of [
      ["clip-l", 0],
      ["clip-g", widthL],
    ] as const) {
      const encoded = outputs[name];
      if (!encoded) continue;
      place(encoded["hidden"]!, row, context, { column, width });
      place(encoded["pooled"]!, row, pooled, { column, width: pooledWidth });
    }
    const t5 = outputs["t5"]?.["hidden"];
    if (t5) place(t5, row, context.subarray(CLIP_TOKENS * width), { column: 0, width });
    return {
      context: { dtype: "float32", shape: [1, length, width], data: context },
      pooled: { dtype: "float32", shape: [1, pooledWidth], data: pooled },
    };
  });
}

/** Copies one row of [B, …, C], token by token, into tokens of another width from a column on. */
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

function checkWidths(
  encoders: OpenTextEncoders,
  { width, pooled }: { readonly width: number; readonly pooled: number },
): void {
  const [l, g, t5] = ["clip-l", "clip-g", "t5"].map((name) => encoders[name]?.width);
  const both = (l ?? 0) + (g ?? 0);
  if (l !== undefined && g !== undefined ? both !== pooled : both > pooled) {
    throw new FormatError(
      `The network takes pooled texts of width ${pooled}, but CLIP-L gives ${l ?? 0} and CLIP-G ${g ?? 0}; give the text encoders that belong to it.`,
    );
  }
  if (both > width || (t5 !== undefined && t5 !== width)) {
    throw new FormatError(
      `The network takes tokens of width ${width}, but ${both > width ? `the CLIPs give ${both}` : `T5 gives ${t5}`}; give the text encoders that belong to it.`,
    );
  }
}
