/** Networks that denoise, of every family, by their configs: the schema of a config, and tracing it with its condition. */
import * as z from "zod";
import type { DType } from "../engine/arrays/ndarray.ts";
import { FormatError } from "../engine/errors.ts";
import { input } from "../engine/graph/functional.ts";
import { pick, recordOf } from "../engine/records.ts";
import { batch, type Shape } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { embedTokens, tokenLogits } from "../nn/conditioning.ts";
import { createParams, type Params, type ParamsRoot } from "../nn/params.ts";
import { withTaps } from "../nn/taps.ts";
import type { Refuse } from "../nn/transformer-schema.ts";
import { familyOf, fromFamilies } from "./families.ts";
import type {
  BlockOptions,
  ImageSizes,
  NetworkFamily,
  NetworkFields,
  MeanFlowStep,
} from "./family.ts";
import {
  encodedPrompt,
  encodedSize,
  type PromptEncoderConfig,
  promptEncoderSchema,
} from "./text-encoders/prompt-encoder.ts";

/** A network of any family: the fields that all have, and those of its family. */
export interface NetworkConfig extends NetworkFields {
  /** The family. */
  readonly kind: string;
  /** The encoder that reads the text of the condition and is trained with the network. */
  readonly prompt?: PromptEncoderConfig | undefined;
  /**
   * For networks on the codes of a VQ autoencoder: each code becomes a vector of `channels` numbers, and the output at a
   * place becomes a logit for each code.
   */
  readonly tokens?:
    | {
        /** The number of codes, from 2. */
        readonly codebook: number;
      }
    | undefined;
  readonly [field: string]: unknown;
}

/** The schema of every family's config; it follows `registerFamily`. */
export const networkSchema = fromFamilies((all): z.ZodType<NetworkConfig> => {
  const [first, ...others] = all.map(configSchema);
  return z.discriminatedUnion("kind", [first!, ...others]) as unknown as z.ZodType<NetworkConfig>;
});

function configSchema(family: NetworkFamily) {
  const tokens = z.strictObject({ codebook: z.int().min(2) });
  const whole = family.schema.safeExtend({
    kind: z.literal(family.kind),
    prompt: promptEncoderSchema.optional(),
    tokens: family.embedsCodes ? tokens : tokens.optional(),
  });
  return whole.superRefine((config, context) => {
    const refuse: Refuse = (field, message) =>
      context.addIssue({ code: "custom", path: [field], message });
    const network = config as unknown as NetworkConfig;
    family.check?.(network, refuse);
    checkBeside(network, refuse);
  });
}

/** Reports a prompt encoder or codes that do not fit the network beside them. */
function checkBeside(
  { condition, prompt, tokens, learnedVariance }: NetworkConfig,
  refuse: Refuse,
): void {
  if (tokens && learnedVariance) {
    refuse("learnedVariance", "codes have no variance; leave it out");
  }
  if (!prompt) return;
  const given = encodedSize(prompt);
  if (condition.kind !== "text") {
    refuse(
      "prompt",
      `a prompt encoder needs a text condition, but the condition is ${condition.kind}`,
    );
  } else if (given.width !== condition.width || given.length !== condition.length) {
    refuse(
      "prompt",
      `the prompt encoder gives ${given.length} tokens of width ${given.width}, but the condition is ${condition.length} of ${condition.width}`,
    );
  } else if (condition.pooled !== undefined) {
    refuse(
      "prompt",
      "a prompt encoder gives no pooled text, which this network takes beside the tokens",
    );
  }
}

/** Published sizes of every family, by name. */
export const networkPresets = fromFamilies((all): ReadonlyMap<string, NetworkConfig> => {
  const named = all.flatMap(({ kind, presets }) =>
    Object.entries(presets).map(([name, config]) => [name, { kind, ...config }] as const),
  );
  return new Map(named);
});

/** The scope of the prompt encoder's weights among the network's. */
export const promptScope = "prompt_encoder";

/** The scope of the embedding of codes and of the head of their logits. */
const codeScope = "tokens";

/** A network as a graph. */
export interface TracedNetwork {
  readonly params: ParamsRoot;
  /**
   * `x` [B, C, H, W], a clip [B, C, frames, H, W] or codes [B, H, W], and `t` [B]; by its condition `y` [B], `ids` and
   * `mask` [B, L], or the output of encoders: `context` [B, L, width] and `pooled` [B, pooled]; `guidance` [B] and `start` [B]
   * where the network takes the scale or its place in a longer clip; `drop`, `skip` [B] and `reference0` [B, C, h, w], … where they were asked for.
   */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** [B, C, H, W] followed by a variance where that is learned, or logits [B, codebook, H, W]. */
  readonly output: Tensor;
  /** Patches of an image; 0 for a U-Net, which has none. */
  readonly tokens: number;
  /** The intermediate tensors that `taps` asked for, by name. */
  readonly taps: Readonly<Record<string, Tensor>>;
}

export interface TraceOptions extends BlockOptions {
  /** Height and width; those of the config unless given. */
  readonly size?: readonly [height: number, width: number] | undefined;
  /** Frames of a clip, in the places of the input; those of the config unless given. */
  readonly frames?: number | undefined;
  /** Adds an input `drop` [B] bool: rows whose condition is dropped. */
  readonly drop?: boolean;
  /**
   * Makes `t` [B, tokens], a time for each patch, in place of [B]; DiT with adaLN blocks, MMDiT and Wan take that. A video DiT has
   * [B, frames], one for each patch of time.
   */
  readonly timePerToken?: boolean;
  /** Sizes of reference pictures as the network sees them, each an input `reference0`, `reference1`, …; none by default. */
  readonly references?: readonly (readonly [height: number, width: number])[] | undefined;
  /**
   * Takes what the network's part for the text alone makes of it as `text`, where there is such a part (see `tracedText`); its
   * weights are declared nevertheless.
   */
  readonly textApart?: boolean;
  /**
   * Replaces the inputs `x` and `t`, and the step of a mean flow. With `inputs` of an earlier trace, its other inputs are those of
   * that trace; with `drop`, the rows whose condition is dropped.
   */
  readonly from?: {
    /** The noised input, [B, channels, H, W]. */
    readonly x: Tensor;
    /** The times, [B]. */
    readonly t: Tensor;
    /** The step of a mean flow. */
    readonly step?: MeanFlowStep | undefined;
    /** The other inputs, by name. */
    readonly inputs?: Readonly<Record<string, Tensor>> | undefined;
    /** Rows whose condition is dropped, [B] bool. */
    readonly drop?: Tensor | undefined;
  };
  /** Intermediate tensors to return, such as "blocks.0.attn.probabilities" or "blocks.*.output"; see `withTaps`. */
  readonly taps?: readonly string[] | undefined;
}

/**
 * Traces a network.
 *
 * @param root given to trace the network again on the same weights
 * @example
 * const { output, params } = traceNetwork({ kind: "dit", ...ditPresets["DiT-S/2"] });
 * const gflops = countMultiplyAdds(graphOf({ output }), 1) / 1e9;
 * @throws UsageError when there is no such family, or `taps` names a tensor that the network does not have; ShapeError when the size does not fit the network
 */
export function traceNetwork(
  config: NetworkConfig,
  traceOptions: TraceOptions = {},
  root: ParamsRoot = createParams(),
): TracedNetwork {
  const { size = config.size, frames = config.frames, taps = [], ...rest } = traceOptions;
  const { drop: drops, from, timePerToken, references = [], textApart, ...options } = rest;
  const tapped = withTaps(root, taps);
  const { params } = tapped;
  const family = familyOf(config);
  const tokens = family.patches(config, size, frames);
  const shown = from?.x ?? input("x", ...networkInput({ ...config, frames }, size));
  const codes = params.at(codeScope);
  const wrapped = family.embedsCodes ? undefined : config.tokens;
  const x = wrapped ? embedTokens(codes, shown, config.channels, wrapped.codebook) : shown;
  const times = family.timePer?.(config) ? separateTimes(config, size, frames) : tokens;
  const t = from?.t ?? input("t", timePerToken ? [batch, times] : [batch]);
  const dropped = from?.drop ?? from?.inputs?.["drop"] ?? (drops && input("drop", [batch], "bool"));
  const drop = dropped ? { drop: dropped } : {};
  const asked = isMeanFlow(config) && !from?.step ? stepInputs() : undefined;
  const step = from?.step ?? asked;
  const skips = (options.skippable ?? []).length > 0;
  const skip = skips ? { skip: input("skip", [batch], "bool") } : {};
  const guidance = guidesItself(config) ? { guidance: input("guidance", [batch]) } : {};
  const pictures = recordOf(referenceNames(references.length), (name, i) =>
    input(name, ...networkInput(config, references[i])),
  );
  const apart = textApart ? tracedText(config, params) : undefined;
  const start = takesStart(config)
    ? { start: from?.inputs?.["start"] ?? input("start", [batch]) }
    : {};
  const given: Record<string, Tensor> = from?.inputs
    ? pick(from.inputs, (name) => name !== "drop")
    : apart
      ? { text: input("text", [batch, ...apart.shape]) }
      : conditionInputs(config, family);
  const { prompt } = config;
  const { ids, mask } = given;
  const condition =
    prompt && ids ? encodedPrompt(params.at(promptScope), ids, mask!, prompt) : given;
  const beside = {
    ...drop,
    ...skip,
    ...guidance,
    ...start,
    step,
    references: Object.values(pictures),
  };
  const output = family.trace(params, { x, t, ...condition, ...beside }, config, options);
  return {
    params: root,
    taps: tapped.taps(),
    inputs: {
      ...(from ? {} : { x: shown, t }),
      ...asked,
      ...given,
      ...drop,
      ...skip,
      ...guidance,
      ...start,
      ...pictures,
    },
    output: wrapped ? tokenLogits(codes, output, wrapped.codebook) : output,
    tokens,
  };
}

/** Returns true if a network takes the steps of a mean flow as an input. */
export function isMeanFlow(config: NetworkConfig): boolean {
  return familyOf(config).isMeanFlow?.(config) ?? false;
}

/** The step of a mean flow as inputs `span`, `guidance`, `from` and `to`, [B] each. */
function stepInputs(): MeanFlowStep & Record<string, Tensor> {
  const one = (name: string) => input(name, [batch]);
  return { span: one("span"), guidance: one("guidance"), from: one("from"), to: one("to") };
}

/** The names of the inputs of reference pictures. */
export function referenceNames(count: number): readonly string[] {
  return Array.from({ length: count }, (_, i) => `reference${i}`);
}

/** The part of a network that reads the text alone. */
export interface TracedText {
  /** Tokens and channels of its output. */
  readonly shape: readonly [tokens: number, width: number];
  /** [B, tokens, width], from the inputs `y` [B, L, width] and `mask` [B, L] bool. */
  readonly output: Tensor;
}

/** Traces the part of a network that reads the text alone; undefined if it has none, or trains an encoder of its own. */
export function tracedText(config: NetworkConfig, params: Params): TracedText | undefined {
  const family = familyOf(config);
  const { text } = family;
  const shape = config.prompt === undefined ? text?.shape(config) : undefined;
  if (!text || !shape) return undefined;
  return { shape, output: text.trace(params, conditionInputs(config, family), config) };
}

/** Shape and type of the input `x`. */
export function networkInput(
  { channels, tokens, size: own, frames }: NetworkConfig,
  size: readonly [height: number, width: number] = own,
): readonly [shape: Shape, dtype: DType] {
  if (tokens) return [[batch, ...size], "int64"];
  return [[batch, channels, ...(frames === undefined ? [] : [frames]), ...size], "float32"];
}

function conditionInputs(
  { condition, prompt }: NetworkConfig,
  { attendsToPadding }: NetworkFamily,
): Record<string, Tensor> {
  if (condition.kind === "none") return {};
  if (condition.kind === "class") return { y: input("y", [batch], "int64") };
  const { length, width, pooled } = condition;
  const text = [batch, length, width];
  if (pooled !== undefined) {
    return { context: input("context", text), pooled: input("pooled", [batch, pooled]) };
  }
  if (!prompt) {
    const mask = attendsToPadding ? {} : { mask: input("mask", [batch, length], "bool") };
    return { y: input("y", text), ...mask };
  }
  const ids = input("ids", [batch, prompt.length], "int64");
  return { ids, mask: input("mask", [batch, prompt.length], "bool") };
}

/** Returns true if a network can run without its condition, which classifier-free guidance needs. */
export function canDrop({ condition }: Pick<NetworkConfig, "condition">): boolean {
  return condition.kind === "text" || (condition.kind === "class" && condition.nullClass);
}

/** Returns true if a network takes the guidance scale as an input, instead of being run with and without its condition. */
export function guidesItself(network: NetworkConfig): boolean {
  return familyOf(network).guidanceInput?.(network) ?? false;
}

/** Returns true for a network of clips that takes the number of frames of a longer clip before its own, as an input `start` [B]. */
export function takesStart(network: NetworkConfig): boolean {
  return familyOf(network).takesStart?.(network) ?? false;
}

/**
 * How many times of its own a clip may have: one for each token, or one for each patch along the axis of time; 1 for networks that take
 * one for the whole.
 *
 * @param size height and width of the network's input
 */
export function separateTimes(
  network: NetworkConfig,
  size: readonly [height: number, width: number] = network.size,
  frames: number | undefined = network.frames,
): number {
  const family = familyOf(network);
  const per = family.timePer?.(network);
  if (per === undefined || frames === undefined) return 1;
  return per === "token"
    ? family.patches(network, size, frames)
    : frames / (family.sizes(network).frames?.unit ?? 1);
}

/** The number of layers that rows may skip, for skip-layer guidance. */
export function skippableLayers(network: NetworkConfig): number {
  return familyOf(network).skippable?.(network) ?? 0;
}

/** More patches than any network attends to; each takes memory in every layer, and tables of positions grow with them. */
const MOST_PATCHES = 2 ** 18;

/**
 * The reason why a network cannot be traced at a size, which is known before anything is; undefined if it can.
 *
 * @param size height and width of the network's input
 */
export function tooManyPatches(
  network: NetworkConfig,
  size: readonly [height: number, width: number],
): string | undefined {
  const patches = familyOf(network).patches(network, size);
  return patches <= MOST_PATCHES
    ? undefined
    : `it would consist of ${patches.toLocaleString("en")} patches, but a network takes at most ${MOST_PATCHES.toLocaleString("en")}`;
}

/**
 * @param owner how the message names the config
 * @throws FormatError if the pictures of a config would consist of more patches than any network takes
 */
export function requireFewPatches(owner: string, network: NetworkConfig): void {
  const reason = tooManyPatches(network, network.size);
  if (reason === undefined) return;
  throw new FormatError(
    `${owner} says that its network draws ${network.size.join("×")}: ${reason}; give the config of a trained model.`,
  );
}

/** The image sizes that a network accepts. */
export function imageSizes(network: NetworkConfig): ImageSizes {
  return familyOf(network).sizes(network);
}
