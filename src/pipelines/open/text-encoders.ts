/**
 * Text encoders that run before the network. `textEncoderKinds` has one row for each architecture; a model lists the encoders
 * that it reads prompts with as rows of a `TextEncoderTable` (see `sd3.ts`) and combines their outputs into its conditions.
 */
import type { Conditions } from "../../diffusion/denoiser.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { nearestNames, PatchwiseError, quote, UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mapValues, pick } from "../../engine/records.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import {
  clipText,
  clipTextConfig,
  clipTextIn,
  type ClipTextName,
} from "../../models/text-encoders/clip-text.ts";
import { qwen3, qwen3Config, qwen3In } from "../../models/text-encoders/qwen3.ts";
import { t5Encoder, t5EncoderConfig, t5EncoderIn } from "../../models/text-encoders/t5-encoder.ts";
import { createParams } from "../../nn/params.ts";
import { chatTokenizer, type ChatTemplate } from "../../text/chat.ts";
import { tokenizerIn } from "../../text/tokenizer-folder.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { withoutLlamaNames } from "../../weights/gguf/llama-names.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { weightsUnder } from "../../weights/views.ts";
import type { Closable } from "../../weights/sources/closing.ts";
import type { ModelFolder } from "../../weights/sources/folder.ts";
import type { PromptEncoder, Stage } from "../image-model.ts";
import type { OpenModelOptions } from "./options.ts";

/** An encoder with its weights. */
export interface OpenTextEncoder {
  /** Channels of its hidden states. */
  readonly width: number;
  readonly weights: WeightSource;
  /**
   * Traces it on `ids` [B, L], with `mask` [B, L] bool for encoders that mask padding: `hidden` [B, L, width], and where it
   * pools a text `pooled` and `projected` [B, width]; for the hidden states of a row, each by its index.
   */
  readonly trace: (ids: Tensor, mask?: Tensor) => Readonly<Record<string, Tensor>>;
}

interface TextEncoderKind {
  /** `model_type` in transformers' config.json. */
  readonly modelType: string;
  /** Opens weights by a config.json. */
  withConfig(file: Weights, fields: FieldReader, row: TextEncoderRow): OpenTextEncoder;
  /** Opens weights without a config, whose sizes show in their shapes. */
  withoutConfig(file: Weights, row: TextEncoderRow): OpenTextEncoder;
}

const clip = ({ config, weights }: ReturnType<typeof clipTextIn>): OpenTextEncoder => ({
  width: config.width,
  weights,
  trace(ids) {
    const { penultimate, pooled, projected } = clipText(createParams(), { ids }, config);
    return { hidden: penultimate, pooled, projected };
  },
});

const t5 = ({ config, weights }: ReturnType<typeof t5EncoderIn>): OpenTextEncoder => ({
  width: config.width,
  weights,
  trace: (ids, mask) => ({ hidden: t5Encoder(createParams(), { ids, mask }, config) }),
});

const qwen3Of = (file: Weights, row: TextEncoderRow, fields?: FieldReader): OpenTextEncoder => {
  const asked = statesOf(row);
  const { config, weights, states } = qwen3In(file, asked, fields && qwen3Config(fields));
  return {
    width: config.width,
    weights,
    trace(ids, mask) {
      const traced = qwen3(createParams(), { ids, mask }, config, states);
      return Object.fromEntries(asked.map((state, i) => [state, traced[i]!]));
    },
  };
};

function statesOf({ title, states = [] }: TextEncoderRow): readonly number[] {
  if (states.length > 0) return states;
  throw new PatchwiseError(`The row of ${title} names no hidden states, of which one is needed.`);
}

/** One row for each architecture of text encoders. */
export const textEncoderKinds = {
  clip: {
    modelType: "clip_text_model",
    withConfig: (file, fields) => clip(clipTextIn(file, clipTextConfig(fields))),
    withoutConfig: (file, { title }) => clip(clipTextIn(file, title as ClipTextName)),
  },
  t5: {
    modelType: "t5",
    withConfig: (file, fields) => t5(t5EncoderIn(file, t5EncoderConfig(fields))),
    withoutConfig: (file) => t5(t5EncoderIn(file)),
  },
  umt5: {
    modelType: "umt5",
    withConfig: (file, fields) => t5(t5EncoderIn(file, t5EncoderConfig(fields))),
    withoutConfig: (file) => t5(t5EncoderIn(file)),
  },
  qwen3: {
    modelType: "qwen3",
    withConfig: (file, fields, row) => qwen3Of(file, row, fields),
    withoutConfig: (file, row) => qwen3Of(file, row),
  },
} satisfies Readonly<Record<string, TextEncoderKind>>;

/** An encoder of a model. */
export interface TextEncoderRow {
  /** The name that messages use. */
  readonly title: string;
  readonly kind: keyof typeof textEncoderKinds;
  /** Encoders of one reader read the same tokens, so that a warning about truncation names them once. */
  readonly reader: string;
  /** Folders of encoder and tokenizer in diffusers' layout. */
  readonly folder: string;
  readonly tokenizer: string;
  /** Prefix of its weights in a single file that holds a whole model. */
  readonly prefix: string;
  /** Returns true if a file holds this encoder alone, under the names of transformers. */
  readonly isAlone: (file: Weights) => boolean;
  /** What to do if the encoder does not fit in memory. */
  readonly remedy?: string;
  /** True if padding is masked; encoders of Stable Diffusion 3 attend to it. */
  readonly masked?: boolean;
  /**
   * The hidden states that are read of a language model, which is opened no further than the last of them; negative ones count from
   * the end, as in `qwen3In`.
   */
  readonly states?: readonly number[];
  /** What stands before and behind a prompt. */
  readonly template?: ChatTemplate;
}

/** The encoders of a model by the names that options use, such as "clip-l". */
export type TextEncoderTable = Readonly<Record<string, TextEncoderRow>>;

/** Opened encoders by name; those that are left out are missing. */
export type OpenTextEncoders = Readonly<Record<string, OpenTextEncoder>>;

/**
 * Names of the encoders that options do not leave out.
 *
 * @param model as messages name it
 * @throws UsageError if one to leave out does not exist
 */
export function wantedEncoders(
  table: TextEncoderTable,
  { without = [] }: OpenModelOptions,
  model: string,
): readonly string[] {
  const names = Object.keys(table);
  for (const name of without) {
    if (names.includes(name)) continue;
    const near = nearestNames(name, names);
    throw new UsageError(
      `${model} has no text encoder ${quote(name)} to leave out; ${near.length > 0 ? "the nearest are" : "it has"} ${(near.length > 0 ? near : names).join(", ")}.`,
    );
  }
  return names.filter((name) => !without.includes(name));
}

/** Opens a component of a folder in diffusers' layout whose config names a model type. */
export type OpenComponent = (
  folder: string,
  modelType: string,
) => Promise<{ readonly folder: ModelFolder; readonly fields: FieldReader }>;

/**
 * Opens encoders from the folders of diffusers' layout.
 *
 * @param names of the encoders to open
 * @param opened receives the opened files
 * @throws FormatError if one is missing, or of another architecture
 */
export async function openEncoderFolders(
  table: TextEncoderTable,
  names: readonly string[],
  openComponent: OpenComponent,
  opened: Closable[],
): Promise<OpenTextEncoders> {
  const found: Record<string, OpenTextEncoder> = {};
  for (const name of names) {
    const row = table[name]!;
    const kind = textEncoderKinds[row.kind];
    const { folder, fields } = await openComponent(row.folder, kind.modelType);
    const file = await openDiffusersWeights(folder, "model");
    opened.push(file);
    found[name] = kind.withConfig(file, fields, row);
  }
  return found;
}

/** Opens encoders whose weights were found in single files. */
export function encodersOfWeights(
  table: TextEncoderTable,
  weights: Readonly<Record<string, Weights>>,
): OpenTextEncoders {
  return mapValues(weights, (file, name) => {
    const row = table[name]!;
    return textEncoderKinds[row.kind].withoutConfig(file, row);
  });
}

/** The encoders' weights in a file: those inside a whole model, or the one that the file is; empty for any other file. */
export function encoderWeightsIn(
  table: TextEncoderTable,
  given: Weights,
): Readonly<Record<string, Weights>> {
  const file = withoutLlamaNames(given);
  const keys = [...file.entries.keys()];
  const inside = pick(table, (name) => keys.some((key) => key.startsWith(table[name]!.prefix)));
  if (Object.keys(inside).length > 0) {
    return mapValues(inside, ({ prefix }) => weightsUnder(file, prefix));
  }
  const alone = Object.entries(table).find(([, row]) => row.isAlone(file));
  return alone ? { [alone[0]]: file } : {};
}

/** The tables of tokens of all architectures, whose rows are as wide as the encoder. */
const tokenTables = [
  "text_model.embeddings.token_embedding.weight",
  "shared.weight",
  "encoder.embed_tokens.weight",
  "model.embed_tokens.weight",
  "embed_tokens.weight",
];

/** Channels of the encoder in a file; undefined if it has no table of tokens. */
export function encoderWidth({ entries }: Weights): number | undefined {
  const table = tokenTables.find((key) => entries.has(key));
  return table === undefined ? undefined : entries.get(table)!.shape[1];
}

/** Reads the tokenizers of encoders from a folder that has a folder for each. */
export async function readTokenizers(
  table: TextEncoderTable,
  encoders: OpenTextEncoders,
  whole: ModelFolder,
): Promise<Readonly<Record<string, Tokenizer>>> {
  const found: Record<string, Tokenizer> = {};
  for (const [name, row] of Object.entries(table)) {
    if (encoders[name]) found[name] = prompted(await tokenizerIn(whole.folder(row.tokenizer)), row);
  }
  return found;
}

/** A tokenizer that puts what the encoder expects before and behind a prompt. */
export function prompted(tokenizer: Tokenizer, { template }: TextEncoderRow): Tokenizer {
  return template ? chatTokenizer(tokenizer, template) : tokenizer;
}

/** An encoder that is ready to read texts. */
export interface ReadyTextEncoder {
  readonly row: TextEncoderRow;
  readonly encoder: OpenTextEncoder;
  readonly tokenizer: Tokenizer;
  /** Number of tokens that it reads; shorter texts are padded. */
  readonly tokens: number;
  /** Its outputs that the conditions need: the name here, and the name in `OpenTextEncoder.trace`. */
  readonly outputs: Readonly<Record<string, string>>;
}

/** Outputs of each encoder, with one row a text, and `mask` [texts, tokens] bool, false for padding. */
export type EncodedTexts = Readonly<Record<string, Readonly<Record<string, NdArray>>>>;

/**
 * A prompt encoder that runs several text encoders one after another.
 *
 * @param encoders by name, in the order in which they run
 * @param conditions makes the network's conditions, one of each for each text, from the outputs of the encoders
 */
export function textEncoding(
  encoders: Readonly<Record<string, ReadyTextEncoder>>,
  conditions: (outputs: EncodedTexts, texts: number) => readonly Conditions[],
): PromptEncoder {
  const all = Object.entries(encoders).map(([name, ready]) => ({
    name,
    ...ready,
    stage: stageOf(ready),
  }));
  const readers = new Map(all.toReversed().map((each) => [each.row.reader, each]));
  return {
    stages: all.map(({ stage }) => stage),
    truncated: (text) =>
      [...readers.values()].toReversed().flatMap(({ row, tokenizer, tokens }) => {
        const lost = tokenizer.encode(text, tokens).lost.trim();
        return lost === "" ? [] : [{ encoder: row.reader, tokens, text: lost }];
      }),
    async encode(texts, run) {
      const outputs: Record<string, Readonly<Record<string, NdArray>>> = {};
      for (const { name, row, stage, tokenizer, tokens } of all) {
        const encoded = texts.map((text) => tokenizer.encode(text, tokens));
        const shape = [texts.length, tokens];
        const ids = ndarray(
          "int64",
          shape,
          encoded.flatMap((each) => Array.from(each.ids)),
        );
        const mask = ndarray(
          "bool",
          shape,
          encoded.flatMap((each) => Array.from(each.mask)),
        );
        outputs[name] = { ...(await run(stage, { ids, ...(row.masked && { mask }) })), mask };
      }
      return conditions(outputs, texts.length);
    },
  };
}

function stageOf({ row, encoder, tokens, outputs }: ReadyTextEncoder): Stage {
  return {
    name: row.title,
    kind: "text encoder",
    weights: encoder.weights,
    ...(row.remedy !== undefined && { remedy: row.remedy }),
    graph() {
      const ids = input("ids", [batch, tokens], "int64");
      const traced = encoder.trace(
        ids,
        row.masked ? input("mask", [batch, tokens], "bool") : undefined,
      );
      return graphOf(mapValues(outputs, (own) => traced[own]!));
    },
  };
}
