/**
 * A model family as one value: everything that the rest of the library needs to know of a network that denoises.
 *
 * `families.ts` lists the families of this package; `registerFamily` there adds one from outside. Training, drawing,
 * counting, LoRA, published files and verification read the table and know no family by name.
 */
import type { z } from "zod";
import type { Recipe } from "../diffusion/recipe.ts";
import type { MuFor } from "../diffusion/resolution-shift.ts";
import type { SamplerName } from "../diffusion/samplers/index.ts";
import type { Graph } from "../engine/graph/graph.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Condition, ConditionedInputs } from "../nn/conditioning.ts";
import type { Params } from "../nn/params.ts";
import type { TokenRoute } from "../nn/token-route.ts";
import type { Refuse } from "../nn/transformer-schema.ts";
import type { KeyMap } from "../weights/check-keys.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import type { LayerName } from "../weights/lora.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import type { AutoencoderKLName } from "./coders/autoencoder-kl-config.ts";
import type { ImageShape } from "./default-sizes.ts";

/** A condition, or a text that comes with a pooled vector of `pooled` channels, as Stable Diffusion 3's encoders give it. */
export type NetworkCondition =
  | Exclude<Condition, { kind: "text" }>
  | (Extract<Condition, { kind: "text" }> & { readonly pooled?: number | undefined });

/** The fields that the config of every family has. */
export interface NetworkFields {
  /** Height and width of the input, in pixels, latents or codes. */
  readonly size: readonly [height: number, width: number];
  /** Frames of a clip, in pixels or latents, for networks whose input is [B, channels, frames, H, W]. */
  readonly frames?: number | undefined;
  /** Channels of the input. */
  readonly channels: number;
  /** True if the output has as many channels again, for the variance (Nichol & Dhariwal, 2021). */
  readonly learnedVariance: boolean;
  /** The condition, which the network takes beside the noised input: nothing, a class or a text. */
  readonly condition: NetworkCondition;
}

/** Inputs of a network; those of its condition are given by its kind. A family that embeds codes itself has them as `x`. */
export interface NetworkInputs extends ConditionedInputs {
  /** Tokens of a text whose condition has `pooled`, [B, length, width]. */
  readonly context?: Tensor | undefined;
  /** The pooled vector beside it, [B, pooled]. */
  readonly pooled?: Tensor | undefined;
  /** Rows that pass the `skippable` layers unchanged, [B] bool. */
  readonly skip?: Tensor | undefined;
  /** What the part of the network that reads the text alone made of it, [B, tokens, width], in place of `y`. */
  readonly text?: Tensor | undefined;
  /** The step that a mean-flow network takes. */
  readonly step?: MeanFlowStep | undefined;
  /** The guidance scale, [B], of a network that was distilled with it. */
  readonly guidance?: Tensor | undefined;
  /** Reference pictures as the network sees them, [B, channels, h, w] each. */
  readonly references?: readonly Tensor[] | undefined;
}

/** How the reference pictures of a network are fitted before they are encoded. */
export interface ReferenceRules {
  /** The most pixels of each of `count` pictures; larger ones are made smaller. */
  readonly pixels: (count: number) => number;
  /** The least width and height in pixels. */
  readonly leastSide: number;
  /** The most that one side may be longer than the other. */
  readonly aspect: number;
}

/** A step of a mean flow as its network takes it, each [B]; time 1 is noise and 0 the picture. */
export interface MeanFlowStep {
  /** How far the step goes, in (0, 1]. */
  readonly span: Tensor;
  /** The guidance that is in the network, at least 1. */
  readonly guidance: Tensor;
  /** The times from and to which it guides. */
  readonly from: Tensor;
  readonly to: Tensor;
}

export interface BlockOptions {
  /** Computes each block again in the backward pass instead of keeping its activations: less memory, more time. */
  readonly recompute?: boolean;
  /** Patches that some of the blocks do not see, in a training; for families that have `routesTokens`. */
  readonly route?: TokenRoute | undefined;
  /** Layers that rows may skip, numbered from 0. */
  readonly skippable?: readonly number[];
}

/** The image sizes that a network accepts, in its own places: pixels, latents or codes. */
export interface ImageSizes {
  /** Height and width must be multiples of it. */
  readonly unit: number;
  /** The largest height and width; unlimited unless given. */
  readonly most?: number;
  /** True if only the size of the config fits, as with learned positions or a canvas. */
  readonly fixed: boolean;
  /** For networks of clips: their frames must be a multiple of `unit`, at most so many, or those of the config if `fixed`. */
  readonly frames?: { readonly unit: number; readonly most?: number; readonly fixed: boolean };
}

/** The fields of a config that the data does not decide. */
export type Architecture<C> = Omit<C, "size" | "channels" | "condition">;

/** The fields that a training config gives, and its data. */
export interface TrainingRequest<C> {
  /** The fields of `model` that the config gives. */
  readonly given: Partial<C>;
  /** The kind of condition that the pictures have. */
  readonly condition: NetworkCondition["kind"];
  /** The shape in which the network sees a picture: pixels, latents or codes. */
  readonly picture: ImageShape;
  /** Name of the data set, for messages. */
  readonly data: string;
}

/** Defaults for training a family from scratch. */
export interface TrainingSupport<C> {
  /** Fields of `model` in a training config that differ from those of the schema. */
  readonly fields?: z.core.$ZodLooseShape;
  /** The architecture where no preset is named: a size that a few CPU cores train in an hour. */
  defaults(picture: ImageShape, given: Partial<C>): Architecture<C>;
  /**
   * Adapts a preset or the defaults to the data.
   *
   * @throws UsageError when the family cannot be trained on such data
   */
  adapt?(architecture: Architecture<C>, request: TrainingRequest<C>): Architecture<C>;
  /** Width of a text's tokens, for the prompt encoder that is trained with the network. */
  textWidth(architecture: Architecture<C>): number;
  /** Layers that a LoRA adapts unless its config names others; attentions and feed-forward layers unless given. */
  readonly loraTargets?: readonly string[];
}

/** A checkpoint of an original repository, which holds weights alone. */
export interface OriginalCheckpoint<C> {
  readonly config: C;
  readonly recipe: Recipe;
  /** Settings with which the original repository draws. */
  readonly sampling: {
    readonly sampler: SamplerName;
    readonly steps: number;
    readonly guidance: number;
    /** The first channels, which alone are guided; all unless given. */
    readonly guidedChannels?: number;
    /** The logarithm of the time shift, which replaces the recipe's. */
    readonly mu?: MuFor;
  };
  /** Why the model cannot be drawn with, as a sentence; it can be counted nevertheless. */
  readonly missing?: string | undefined;
}

/** The single files of a family's original repository. */
export interface OriginalFiles<C> {
  /** True if no shape shows the number of heads, so that it is taken from the published sizes. */
  readonly headsUnshown?: boolean;
  /** The value of `general.architecture` in its GGUF files, by which ComfyUI's readers recognise them; the family's kind unless given. */
  readonly architecture?: string;
  /** Returns true if the keys are those of this family. */
  recognises(weights: Weights): boolean;
  /** The weights under the family's own names, where files have others too; as they are unless given. */
  weights?(weights: Weights): Weights;
  /** The name of a layer in such files, and which of equal parts of that name's rows it is, where it differs from the family's own. */
  layerName?(layer: string): Pick<LayerName, "name" | "part">;
  /**
   * Reads what the model is from keys and shapes; who loads the weights checks them in full.
   *
   * @param fittingPreset finds the published size whose weights these are, where the shapes alone do not say it
   * @param heads for families whose number of heads shows in no shape
   * @throws FormatError when the file cannot be opened by itself, or is of no known size
   */
  open(weights: Weights, fittingPreset: () => C, heads?: number): OriginalCheckpoint<C>;
}

/** A layer that is some rows of another. */
export interface LayerPart {
  readonly name: string;
  readonly rows: readonly [from: number, to: number];
}

/** The class by which diffusers has the family. */
export interface DiffusersModel<C> {
  /** `_class_name` of its config.json. */
  readonly className: string;
  /** @throws FormatError that names the field at fault */
  config(fields: FieldReader): C;
  /** Ours → diffusers' names. */
  readonly keys: KeyMap;
  /** Diffusers' weights in the layout of the original code. */
  weights(weights: Weights, config: C): Weights;
  /** Completes a config with what shows in the weights alone. */
  complete?(config: C, fields: FieldReader, weights: Weights): Promise<C>;
  /** Returns true if diffusers' layer of this name stores its scale before its shift, where the original has the shift first. */
  swapsHalves?(layer: string, config: C): boolean;
  /** The layers that diffusers keeps apart of one that `weights` joins, other than queries, keys and values: their names and rows. */
  parts?(layer: string, config: C): readonly LayerPart[] | undefined;
  /** True if LoRA files are written with diffusers' names, because others look for these. */
  readonly namesLora: boolean;
}

/** Lets `patchwise verify` compute a recorded forward pass of the original. */
export interface RecordedForward<C> {
  /** `family` in the recording's config.json. */
  readonly name: string;
  /**
   * Reads the arguments of the original's constructor, each of which is honoured or refused.
   *
   * @param recording the whole config.json, for what the constructor does not say
   */
  config(args: FieldReader, recording: FieldReader): C;
  /** The network's inputs → names of the recorded ones. */
  inputs(config: C): { readonly [K in keyof NetworkInputs]?: string };
  /** Name of the recorded output. */
  readonly output: string;
  /** The outputs whose gradients are recorded: those of the first case, or the sum over all cases; of the first unless given. */
  readonly gradientsOf?: "first case" | "all cases";
  /** The network in the layout of the original, where its input or output is laid out in another way than that of `trace`. */
  trace?(p: Params, inputs: NetworkInputs, config: C): Tensor;
  /** Classifier-free guidance as part of the original's network; both halves of a batch of 2B have the same images. */
  guided?(p: Params, inputs: NetworkInputs, config: C, scale: Tensor): Tensor;
  /** Name of the guided output; that of `output` followed by `_with_cfg` unless given. */
  readonly guidedOutput?: string;
}

/** One case of a recording, which has inputs of its own sizes. */
export interface RecordedCase {
  /** The recorded `in.CASE.NAME` as a leaf of its recorded shape; undefined if it was not recorded. */
  optional(name: string): Tensor | undefined;
  /** @throws FormatError if it was not recorded */
  required(name: string): Tensor;
  /** The recorded NAME0, NAME1, … */
  numbered(name: string): readonly Tensor[];
}

/** The outputs that a family computes for a case. */
export interface TracedCase {
  /** Outputs, by NAME in `out.CASE.NAME`. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Tensors the means of whose squares, over all cases, add up to the scalar of the recorded gradients. */
  readonly judged: readonly Tensor[];
  /** Recorded inputs that the network computes itself, such as positions, by NAME; others are refused. */
  readonly own?: Readonly<Record<string, readonly number[]>>;
}

/** The same table of numbers for every row of a batch, such as the places of tokens. */
export function manyRows(rows: number, table: readonly (readonly number[])[]): readonly number[] {
  return Array.from({ length: rows }, () => table.flat()).flat();
}

/** Lets `patchwise verify` compute recordings with several cases, `in.CASE.NAME`, of different sizes and lengths. */
export interface RecordedCases<C> {
  /** `family` in the recording's config.json. */
  readonly name: string;
  /** Reads the arguments of the original's constructor, each of which is honoured or refused. */
  config(args: FieldReader, recording: FieldReader): C;
  trace(p: Params, recorded: RecordedCase, config: C): TracedCase;
}

/** The part of a network that reads the text alone. */
export interface TextPart<C> {
  /** Tokens and channels of what it makes of a text; undefined for a config in which it reads more than the text. */
  shape(config: C): readonly [tokens: number, width: number] | undefined;
  /** `y` [B, L, width] and `mask` → the input `text` of the network, [B, tokens, width]. */
  trace(p: Params, inputs: Omit<NetworkInputs, "x" | "t">, config: C): Tensor;
}

/** A graph whose costs can be counted without weights. */
export interface CountedPreset {
  /** The input of one forward pass; a clip is as long as the chunks in which it is coded. */
  readonly of: "text" | "image" | "clip";
  /** Tokens of it. */
  readonly tokens: number;
  readonly graph: () => Graph;
}

/**
 * A family of networks that denoise.
 *
 * @example
 * const mixer: NetworkFamily<MixerConfig> = { kind: "mixer", title: "MLP-Mixer", schema, presets: {}, trace: mixer, … };
 * registerFamily(mixer);
 */
export interface NetworkFamily<C extends NetworkFields = NetworkFields> {
  /** The value of `kind` in configs. */
  readonly kind: string;
  /** Name in messages. */
  readonly title: string;
  /** The fields of a config, without `kind`; each config type is this schema's output. */
  readonly schema: z.ZodObject;
  /** Reports fields that are sound by themselves but do not fit each other. */
  check?(config: C, refuse: Refuse): void;
  /** Published sizes, by name. */
  readonly presets: Readonly<Record<string, C>>;
  /** Published models that are counted but differ from what `trace` builds, such as earlier versions. */
  readonly counted?: Readonly<Record<string, CountedPreset>>;
  /**
   * The network as a pure function.
   *
   * @returns [B, channels, H, W], or [B, channels, frames, H, W] for clips, or twice as many channels with a learned variance;
   *   logits [B, codebook, H, W] where the family embeds codes itself
   * @throws ShapeError when inputs and config do not fit each other
   */
  trace(p: Params, inputs: NetworkInputs, config: C, options: BlockOptions): Tensor;
  /** True if the network can be trained with patches that some of its blocks do not see; false unless given. */
  readonly routesTokens?: boolean;
  /** Returns true if a network of this config takes the steps of a mean flow as an input, `step`. */
  isMeanFlow?(config: C): boolean;
  /** The part of the network that reads the text alone, so that drawing runs it once a prompt; present in some families. */
  readonly text?: TextPart<C>;
  /** True if the network embeds codes of a codebook itself; others get an embedding and a head of logits around them. */
  readonly embedsCodes?: boolean;
  /** The published autoencoder whose latents it draws, where others have as many channels. */
  readonly autoencoder?: AutoencoderKLName;
  /** Rules for the pictures of `NetworkInputs.references`; absent where a network was trained without any. */
  readonly references?: ReferenceRules;
  /** Returns true if the guidance scale is an input of the network, `guidance`; false unless given. */
  guidanceInput?(config: C): boolean;
  /** True if the padding of a text is attended to, so that the network takes no mask of it; false unless given. */
  readonly attendsToPadding?: boolean;
  sizes(config: C): ImageSizes;
  /**
   * Patches of an image or a clip, 0 where the network has none.
   *
   * @param frames of a clip, in the places of the network's input
   */
  patches(config: C, size: readonly [height: number, width: number], frames?: number): number;
  /** What may have a time of its own, so that a clip is drawn around given frames: each token, or each patch of time. */
  timePer?(config: C): "token" | "frame";
  /** True for a network of clips that takes the number of frames of a longer clip before its own, `start`; false unless given. */
  takesStart?(config: C): boolean;
  /** Layers that rows may skip, for skip-layer guidance; none unless given. */
  skippable?(config: C): number;
  /** Present if the family can be trained from scratch. */
  readonly training?: TrainingSupport<C>;
  readonly original?: OriginalFiles<C>;
  readonly diffusers?: DiffusersModel<C>;
  readonly recorded?: RecordedForward<C>;
  readonly recordedCases?: RecordedCases<C>;
}
