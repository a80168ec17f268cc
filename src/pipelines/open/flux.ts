/**
 * FLUX.1, FLUX.2 [klein] and Z-Image as models of their parts: the schedules and the settings of their pipelines in diffusers, and
 * how the outputs of their text encoders become the conditions of their networks.
 */
import { rowsOf } from "../../diffusion/arrays.ts";
import type { Conditions } from "../../diffusion/denoiser.ts";
import { diffusersScheduler } from "../../diffusion/diffusers/schedulers.ts";
import { flux2Mu, type MuFor, schedulerMu } from "../../diffusion/resolution-shift.ts";
import { type NdArray, ndarray, toNumbers } from "../../engine/arrays/ndarray.ts";
import { FormatError, UsageError } from "../../engine/errors.ts";
import { qwen3Template } from "../../text/chat.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { ImageModel } from "../image-model.ts";
import { muOf, schedulerProcess } from "../process.ts";
import type { OpenModelOptions } from "./options.ts";
import {
  type EncodedTexts,
  type OpenTextEncoders,
  type ReadyTextEncoder,
  type TextEncoderRow,
  type TextEncoderTable,
  textEncoding,
} from "./text-encoders.ts";

/** The fields of a folder's files that its drawing depends on. */
export interface FolderFields {
  readonly index: FieldReader;
  readonly transformer: FieldReader;
  readonly scheduler: FieldReader;
}

type Drawing = Pick<ImageModel, "process" | "defaults">;

/** Diffusers' scheduler, which the pipelines of these models give evenly spaced sigmas, and μ where it takes one. */
function scheduled(
  { scheduler }: FolderFields,
  network: ImageModel["network"],
  mu: MuFor,
): ImageModel["process"] {
  const name = scheduler.text("_class_name");
  return schedulerProcess(name, diffusersScheduler(name, scheduler), {
    evenSigmas: true,
    mu: muOf(network, mu),
  });
}

/** FLUX.1: schnell was distilled to 4 steps, dev takes its guidance as an input. */
export function fluxDrawing(fields: FolderFields, network: ImageModel["network"]): Drawing {
  return {
    process: scheduled(fields, network, schedulerMu(fields.scheduler)),
    defaults: fields.transformer.flag("guidance_embeds", false)
      ? { steps: 28, guidance: 3.5 }
      : { steps: 4, guidance: 1 },
  };
}

/** FLUX.2 [klein]: distilled to 4 steps without guidance, or its base. */
export function kleinDrawing(fields: FolderFields, network: ImageModel["network"]): Drawing {
  return {
    process: scheduled(fields, network, flux2Mu),
    defaults: fields.index.flag("is_distilled", false)
      ? { steps: 4, guidance: 1 }
      : { steps: 50, guidance: 4 },
  };
}

/** The shift of Z-Image-Turbo, which was distilled to 8 steps; the base model has another. */
const TURBO_SHIFT = 3;

/** Z-Image, whose own code counts the guidance from 0: its 5 is 6 here. */
export function zImageDrawing(fields: FolderFields, network: ImageModel["network"]): Drawing {
  return {
    process: scheduled(fields, network, schedulerMu(fields.scheduler)),
    defaults:
      fields.scheduler.number("shift", 1) === TURBO_SHIFT
        ? { steps: 8, guidance: 1 }
        : { steps: 50, guidance: 6 },
  };
}

const startsWith = (file: Weights, prefix: string) =>
  [...file.entries.keys()].some((key) => key.startsWith(prefix));

export const fluxTextEncoders = {
  "clip-l": {
    title: "CLIP-L",
    kind: "clip",
    reader: "CLIP",
    folder: "text_encoder",
    tokenizer: "tokenizer",
    prefix: "text_encoders.clip_l.transformer.",
    isAlone: (file: Weights) => startsWith(file, "text_model."),
  },
  t5: {
    title: "T5",
    kind: "t5",
    reader: "T5",
    folder: "text_encoder_2",
    tokenizer: "tokenizer_2",
    prefix: "text_encoders.t5xxl.transformer.",
    isAlone: (file: Weights) => startsWith(file, "encoder.block."),
  },
} satisfies TextEncoderTable;

/** Qwen3 as a model reads it. */
const qwen3Row = (states: readonly number[], thinking: boolean): TextEncoderRow => ({
  title: "Qwen3",
  kind: "qwen3",
  reader: "Qwen3",
  folder: "text_encoder",
  tokenizer: "tokenizer",
  prefix: "text_encoders.qwen3_4b.transformer.",
  // As the causal language model, or as the encoder of transformers alone.
  isAlone: (file) => startsWith(file, "model.layers.") || startsWith(file, "layers.0.self_attn."),
  masked: true,
  states,
  template: qwen3Template(thinking),
});

/** Hidden states of Qwen3-4B that lie side by side in a token of FLUX.2 [klein]. */
const kleinStates = [9, 18, 27];
export const kleinTextEncoders: TextEncoderTable = { qwen3: qwen3Row(kleinStates, false) };

/** The last hidden state but one. */
const zImageState = -2;
export const zImageTextEncoders: TextEncoderTable = { qwen3: qwen3Row([zImageState], true) };

/** Adds its text encoders to a FLUX.1. @throws as `withText` does */
export function fluxModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
  options: OpenModelOptions,
): ImageModel {
  const outputs = { "clip-l": { pooled: "pooled" }, t5: { hidden: "hidden" } };
  const { condition } = parts.network;
  const pooled = condition.kind === "text" ? condition.pooled : undefined;
  const clip = encoders["clip-l"];
  if (clip && clip.width !== pooled) {
    throw new FormatError(
      `The network takes pooled texts of width ${pooled}, but CLIP-L gives ${clip.width}; give the text encoders that belong to it.`,
    );
  }
  return withText(
    parts,
    { table: fluxTextEncoders, encoders, tokenizers, outputs, options },
    {
      width: encoders["t5"]?.width ?? 0,
      conditions: (encoded, row) => ({
        context: rowsOf(encoded["t5"]!["hidden"]!, row, 1),
        pooled: rowsOf(encoded["clip-l"]!["pooled"]!, row, 1),
      }),
    },
  );
}

/** Adds its text encoder to a FLUX.2 [klein]. @throws as `withText` does */
export function kleinModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
  options: OpenModelOptions,
): ImageModel {
  const outputs = { qwen3: Object.fromEntries(kleinStates.map((state) => [state, `${state}`])) };
  return withText(
    parts,
    { table: kleinTextEncoders, encoders, tokenizers, outputs, options },
    {
      width: kleinStates.length * (encoders["qwen3"]?.width ?? 0),
      conditions: ({ qwen3 }, row) => ({
        y: sideBySide(kleinStates.map((state) => rowsOf(qwen3![state]!, row, 1))),
      }),
    },
  );
}

/** Adds its text encoder to a Z-Image. @throws as `withText` does */
export function zImageModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
  options: OpenModelOptions,
): ImageModel {
  const outputs = { qwen3: { hidden: `${zImageState}` } };
  return withText(
    parts,
    { table: zImageTextEncoders, encoders, tokenizers, outputs, options },
    {
      width: encoders["qwen3"]?.width ?? 0,
      conditions: ({ qwen3 }, row) => ({
        y: rowsOf(qwen3!["hidden"]!, row, 1),
        mask: rowsOf(qwen3!["mask"]!, row, 1),
      }),
    },
  );
}

interface TextParts {
  readonly table: TextEncoderTable;
  readonly encoders: OpenTextEncoders;
  readonly tokenizers: Readonly<Record<string, Tokenizer>>;
  /** Outputs of each encoder: the name in the conditions, and that in `OpenTextEncoder.trace`. */
  readonly outputs: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly options: OpenModelOptions;
}

/** Number of tokens that a CLIP reads. */
const CLIP_TOKENS = 77;

/**
 * Adds text encoders to the other parts.
 *
 * @param reading.width of a token as the network gets it
 * @param reading.conditions of one text, with one row each
 * @throws FormatError if an encoder is missing or does not fit the network; UsageError if it cannot read so many tokens
 */
function withText(
  { network, ...parts }: ImageModel,
  { table, encoders, tokenizers, outputs, options }: TextParts,
  reading: {
    readonly width: number;
    readonly conditions: (encoded: EncodedTexts, row: number) => Conditions;
  },
): ImageModel {
  const { condition } = network;
  if (condition.kind !== "text") throw new FormatError(`${parts.name} takes no texts.`);
  const missing = Object.entries(table).filter(([name]) => !encoders[name]);
  if (missing.length > 0) {
    const titles = missing.map(([, { title, folder }]) => `${title} (${folder})`).join(", ");
    throw new FormatError(
      `${parts.name} lacks its text encoder ${titles}; download the whole folder.`,
    );
  }
  if (reading.width !== condition.width) {
    throw new FormatError(
      `The network takes tokens of width ${condition.width}, but its text encoder gives ${reading.width}; give the text encoder that belongs to it.`,
    );
  }
  const { promptTokens = condition.length } = options;
  if (!Number.isInteger(promptTokens) || promptTokens < 1 || promptTokens > 512) {
    throw new UsageError(`promptTokens must be a whole number from 1 to 512, got ${promptTokens}.`);
  }
  const ready = Object.fromEntries(
    Object.entries(table).map(([name, row]): [string, ReadyTextEncoder] => [
      name,
      {
        row,
        encoder: encoders[name]!,
        tokenizer: tokenizers[name]!,
        tokens: row.kind === "clip" ? CLIP_TOKENS : promptTokens,
        outputs: outputs[name]!,
      },
    ]),
  );
  return {
    ...parts,
    network: { ...network, condition: { ...condition, length: promptTokens } },
    encoder: textEncoding(ready, (encoded, texts) =>
      Array.from({ length: texts }, (_, row) => reading.conditions(encoded, row)),
    ),
  };
}

/** Joins arrays [1, L, width] along the last axis. */
function sideBySide(arrays: readonly NdArray[]): NdArray {
  const [, length = 0, width = 0] = arrays[0]!.shape;
  const values = arrays.map(toNumbers);
  const joined = Array.from({ length }, (_, token) =>
    values.flatMap((each) => each.slice(token * width, (token + 1) * width)),
  );
  return ndarray("float32", [1, length, arrays.length * width], joined.flat());
}
