/**
 * A model that draws, and the programs that it consists of. `open/` makes an `ImageModel` of a trained folder, a folder in
 * diffusers' layout or a single file; `pipeline.ts` draws with it.
 */
import type { Conditions } from "../diffusion/denoiser.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import { input } from "../engine/graph/functional.ts";
import { type Graph, graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import { type RecentlyUsed, recentlyUsed } from "../engine/recent.ts";
import type { RunOptions, WeightSource } from "../engine/runtime/backend.ts";
import type { Card } from "../models/card.ts";
import { defaultTile } from "../models/coders/autoencoder-kl.ts";
import {
  codecShape,
  decodeWithCodec,
  encodeWithCodec,
  type ImageCodec,
} from "../models/coders/image-codec.ts";
import {
  spatialFactor,
  temporalFactor,
  type VideoAutoencoderConfig,
} from "../models/coders/video-autoencoder-config.ts";
import type { Direction } from "../models/coders/video-autoencoder.ts";
import { type ChunkCoder, chunkCoder } from "../models/coders/video-chunks.ts";
import {
  imageSizes,
  type NetworkConfig,
  type TracedNetwork,
  tooManyPatches,
  tracedText,
  traceNetwork,
} from "../models/network.ts";
import { createParams } from "../nn/params.ts";
import { type Computation, quantizedStage } from "./compute.ts";
import type { SamplingProcess } from "./process.ts";

export interface ImageModel {
  /** The name that messages use: of a bundled model, a folder, a file or a repository. */
  readonly name: string;
  readonly network: NetworkConfig;
  /** The network's weights under its own names, already checked against it. */
  readonly weights: WeightSource;
  readonly process: SamplingProcess;
  /** Index of each class by name; a class may have several names. Classes can also be given by their number. */
  readonly classes?: ReadonlyMap<string, number> | undefined;
  /** Encodes prompts; present if the model takes prompts and no part is missing. */
  readonly encoder?: PromptEncoder | undefined;
  /** Decodes latents or tokens to pixels; absent if the network draws pixels. */
  readonly decoder?: LatentDecoder | undefined;
  /** Decodes latents of clips to pixels, in place of `decoder`, and encodes frames. */
  readonly clipDecoder?: ClipDecoder | undefined;
  /** Settings that a request takes from the model where it gives none. */
  readonly defaults: Omit<Card["sampling"], "sampler"> & {
    readonly guidedChannels?: number | undefined;
    /** Frames a second of a clip. */
    readonly fps?: number | undefined;
    /** Ratios of noise to signal between which it is guided; at all unless given. */
    readonly guidedBetween?: readonly [above: number, upTo: number];
  };
  /** The LoRAs that were merged into the weights. */
  readonly loras?: readonly MergedLora[] | undefined;
  /** Sentences about parts of the files that have no effect. */
  readonly warnings?: readonly string[] | undefined;
  /** A sentence that names the parts that are missing for drawing, and how to give them; undefined if there are none. */
  readonly missingParts?: string | undefined;
  /** Closes the files. */
  close(): Promise<void>;
}

/** A LoRA by its file or folder, and the weight with which it was merged. */
export interface MergedLora {
  readonly file: string;
  readonly weight: number;
}

/** A causal video autoencoder. */
export interface ClipDecoder {
  readonly config: VideoAutoencoderConfig;
  readonly weights: WeightSource;
}

export type LatentDecoder = ImageCodec & { readonly weights: WeightSource };

/** Turns texts into the network's conditions. */
export interface PromptEncoder {
  /** Programs that run before the network; empty if the network's own graph reads token ids. */
  readonly stages: readonly Stage[];
  /** The content of tokenizer.json, if the network's own graph reads token ids. */
  readonly tokenizer?: object;
  /** The parts of a text that are past the token limit of an encoder; empty if the whole text is read. */
  truncated(text: string): readonly TruncatedText[];
  /** The words of a text that the model was not trained to read; left out where every word may be known. */
  unknownWords?(text: string): readonly string[];
  /** Conditions of one row for each text; the empty text gives the unconditional ones. */
  encode(texts: readonly string[], run: RunStage): Promise<readonly Conditions[]>;
}

export interface TruncatedText {
  readonly encoder: string;
  /** The encoder's limit in tokens. */
  readonly tokens: number;
  /** The text past the limit. */
  readonly text: string;
}

/** One program of a model. The same stage is the same object each time, so that its program can be cached. */
export interface Stage {
  /** The name that messages use, such as "the decoder". */
  readonly name: string;
  readonly kind: "text encoder" | "image encoder" | "network" | "decoder";
  readonly graph: () => Graph;
  readonly weights: WeightSource;
  /** What to do if the stage does not fit in memory, where there is more to do than drawing less. */
  readonly remedy?: string;
}

/** Runs a stage and compiles its program first if needed. */
export type RunStage = (
  stage: Stage,
  inputs: Readonly<Record<string, NdArray>>,
  options?: RunOptions,
) => Promise<Readonly<Record<string, NdArray>>>;

type Size = readonly [height: number, width: number];

/** The stages of one model. */
export interface Stages {
  readonly encoders: readonly Stage[];
  /** The network for latents or pixels of a height and width. */
  network(
    size: Size,
    options?: DrawingOptions & { readonly compute?: Computation | undefined },
  ): Stage;
  /** Latents along a side of a tile, by which larger ones are decoded; undefined where they are decoded at once. */
  readonly tile: number | undefined;
  /** The decoder for latents of a height and width; undefined if the network draws pixels. */
  decoder(size: Size): Stage | undefined;
  /**
   * The encoder for clips of frames of a height and width, or the decoder for latents, chunk by chunk; undefined for models without
   * one.
   */
  clipCoder(direction: Direction, size: Size): ClipStages | undefined;
  /** The encoder for images of a height and width in pixels; undefined if the network draws pixels. */
  imageEncoder(size: Size): Stage | undefined;
}

/** The programs that code the chunks of a clip. */
export interface ClipStages {
  readonly coder: ChunkCoder;
  /** The stage of a graph of the coder. */
  stage(graph: Graph): Stage;
}

/** The fields of a model that its stages depend on. */
export type StagedModel = Pick<
  ImageModel,
  "network" | "weights" | "decoder" | "clipDecoder" | "encoder"
>;

/** Sizes of clips, in each direction, whose graphs are remembered. */
const KEPT_CLIP_SIZES = 8;

export function stagesOf(model: StagedModel): Stages {
  const { network, weights, decoder, clipDecoder, encoder } = model;
  const made = new Map<string, Stage>();
  const clips = recentlyUsed<ClipStages>(KEPT_CLIP_SIZES);
  const once = (kind: Stage["kind"], key: string, source: WeightSource, graph: () => Graph) => {
    const name = `the ${kind}`;
    const found = made.get(`${name} ${key}`) ?? { name, kind, graph, weights: source };
    made.set(`${name} ${key}`, found);
    return found;
  };
  return {
    encoders: encoder?.stages ?? [],
    tile: decoder?.kind === "kl" ? defaultTile / (decoder.config.packing?.patch ?? 1) : undefined,
    network(size, options = {}) {
      const { compute, skippable = [], frames = network.frames, timePerToken = false } = options;
      const { taps = [], references = [] } = options;
      const whole = { skippable, frames, timePerToken, taps, references };
      const key = JSON.stringify([size, whole]);
      const stage = once("network", key, weights, () => networkGraph(network, size, whole));
      return compute === "int8" ? quantizedStage(stage) : stage;
    },
    clipCoder: (direction, size) => clipDecoder && clipStages(clipDecoder, direction, size, clips),
    decoder: (size) =>
      decoder &&
      once("decoder", size.join("×"), decoder.weights, () => decoderGraph(decoder, size)),
    imageEncoder: (size) =>
      decoder &&
      once("image encoder", size.join("×"), decoder.weights, () => encoderGraph(decoder, size)),
  };
}

/** The programs for clips of one size in one direction. */
function clipStages(
  { config, weights }: ClipDecoder,
  direction: Direction,
  size: Size,
  recent: RecentlyUsed<ClipStages>,
): ClipStages {
  const kind = direction === "decode" ? "decoder" : "image encoder";
  return recent(`${direction} ${size.join("×")}`, () => {
    const stages = new Map<Graph, Stage>();
    return {
      coder: chunkCoder(config, direction, size),
      stage(graph) {
        const stage: Stage = stages.get(graph) ?? {
          name: `the ${kind}`,
          kind,
          graph: () => graph,
          weights,
        };
        stages.set(graph, stage);
        return stage;
      },
    };
  });
}

/** How a network is traced for a drawing. */
export interface DrawingOptions {
  /** Layers that the rows with `skip` pass unchanged; none unless given. */
  readonly skippable?: readonly number[] | undefined;
  /** Frames of clips, in the places of the network's input; the config's own unless given. */
  readonly frames?: number | undefined;
  /** True if each token has a time of its own, `t` [B, tokens]. */
  readonly timePerToken?: boolean | undefined;
  /** Sizes of reference pictures in the places of the network's input, each an input `reference0`, …; none unless given. */
  readonly references?: readonly Size[] | undefined;
  /** Names of intermediate tensors that the network returns too; none unless given. */
  readonly taps?: readonly string[] | undefined;
}

/**
 * Traces a network with the inputs that drawing needs.
 *
 * @param size height and width of the network's input; the config's own unless given
 */
export function tracedForDrawing(
  network: NetworkConfig,
  size?: Size,
  { skippable = [], timePerToken = false, ...options }: DrawingOptions = {},
): TracedNetwork {
  // Classes have an index for "no class" and external encoders read the empty text; only a prompt encoder inside the
  // network needs an input that drops the condition.
  const drop = network.prompt !== undefined;
  return traceNetwork(network, {
    ...options,
    size,
    drop,
    skippable,
    timePerToken,
    textApart: true,
  });
}

/**
 * The part of a network that reads the text alone as a graph: `y` [B, L, width] and `mask` [B, L] bool → `text`.
 *
 * @throws UsageError if the network has no such part
 */
export function textGraph(network: NetworkConfig): Graph {
  const traced = tracedText(network, createParams());
  if (traced) return graphOf({ text: traced.output });
  throw new UsageError(`A ${network.kind} has no part that reads a text alone.`);
}

/**
 * The network as a graph: `x` [B, C, H, W], a clip [B, C, frames, H, W] or tokens [B, H, W], times `t` [B], the condition, and `skip` [B] if layers are
 * skippable → `output`, and the intermediate tensors of `taps` by their names.
 */
export function networkGraph(network: NetworkConfig, size?: Size, options?: DrawingOptions): Graph {
  const { output, taps } = tracedForDrawing(network, size, options);
  return graphOf({ output, ...taps });
}

/**
 * The decoder as a graph: `latents` [B, channels, h, w] or tokens [B, h, w], as the network draws them → `pixels`
 * [B, C, f·h, f·w], about in [−1, 1].
 */
export function decoderGraph(coder: ImageCodec, size: Size): Graph {
  const latents =
    coder.kind === "kl"
      ? input("latents", [batch, codecShape(coder).latents, ...size])
      : input("latents", [batch, ...size], "int64");
  return graphOf({ pixels: decodeWithCodec(createParams(), latents, coder) });
}

/**
 * The image encoder as a graph: `images` [B, C, H, W] in [−1, 1] → `latents` [B, channels, H/f, W/f] or tokens
 * [B, H/f, W/f], as the network draws them.
 */
export function encoderGraph(coder: ImageCodec, size: Size): Graph {
  const images = input("images", [batch, codecShape(coder).inputs, ...size]);
  return graphOf({ latents: encodeWithCodec(createParams(), images, coder) });
}

/** The fields of a model that the sizes of its pictures depend on. */
export type SizedModel = Pick<ImageModel, "name" | "network" | "decoder" | "clipDecoder">;

/** Sides that a request gives; the others are the model's own. */
interface AskedSize {
  readonly width?: number | undefined;
  readonly height?: number | undefined;
}

export interface PictureSize {
  readonly width: number;
  readonly height: number;
}

/**
 * The size in pixels of what a model draws.
 *
 * @throws UsageError if the model cannot draw this size
 */
export function pictureSize(wanted: AskedSize, model: SizedModel): PictureSize {
  const { name, network } = model;
  const scale = pixelsPerLatent(model);
  const [ownHeight, ownWidth] = network.size.map((side) => side * scale) as [number, number];
  const { width = ownWidth, height = ownHeight } = wanted;
  const sizes = imageSizes(network);
  const unit = sizes.unit * scale;
  if (
    ![width, height].every((side) => Number.isSafeInteger(side) && side > 0 && side % unit === 0)
  ) {
    const near = [width, height].map((side) =>
      Number.isFinite(side) ? Math.max(1, Math.round(side / unit)) * unit : unit,
    );
    throw new UsageError(
      `${name} cannot draw ${width}×${height} pixels: width and height must be multiples of ${unit}, such as ${near.join("×")}.`,
    );
  }
  const most = (sizes.most ?? Infinity) * scale;
  if (Math.max(width, height) > most) {
    throw new UsageError(
      `${name} cannot draw ${width}×${height} pixels: its position table ends at ${most}×${most}; give a smaller size.`,
    );
  }
  if (sizes.fixed && (width !== ownWidth || height !== ownHeight)) {
    throw new UsageError(
      `${name} cannot draw ${width}×${height} pixels: it was trained for ${ownWidth}×${ownHeight} only; leave the size out.`,
    );
  }
  const reason = tooManyPatches(network, [height / scale, width / scale]);
  if (reason === undefined) return { width, height };
  throw new UsageError(
    `${name} cannot draw ${width}×${height} pixels: ${reason}; give a smaller size.`,
  );
}

/** A sentence if a size has more than twice or less than half of the pixels that the model was trained on. */
export function sizeWarnings({ width, height }: PictureSize, model: SizedModel): string[] {
  const own = pictureSize({}, model);
  const share = (width * height) / (own.width * own.height);
  if (share <= 2 && share >= 1 / 2) return [];
  return [
    `${model.name} was trained on pictures of about ${own.width}×${own.height} pixels; at ${width}×${height} expect broken or repeated shapes.`,
  ];
}

/**
 * Height and width of the network's input for pictures of a size in pixels.
 *
 * @throws UsageError if the model cannot draw this size
 */
export function latentSize(wanted: AskedSize, model: SizedModel): Size {
  const { width, height } = pictureSize(wanted, model);
  const scale = pixelsPerLatent(model);
  return [height / scale, width / scale];
}

/** Pixels along a side for each element of the network's input. */
function pixelsPerLatent({ decoder, clipDecoder }: SizedModel): number {
  if (clipDecoder) return spatialFactor(clipDecoder.config);
  return decoder ? codecShape(decoder).factor : 1;
}

/** Frames for each element of the network's input, all but the first. */
export function framesPerLatent({ clipDecoder }: SizedModel): number {
  return clipDecoder ? temporalFactor(clipDecoder.config) : 1;
}

/** The frames of a clip that a model draws unless told otherwise; undefined for models of still pictures. */
export function ownFrames(model: SizedModel): number | undefined {
  const { frames } = model.network;
  return frames === undefined ? undefined : (frames - 1) * framesPerLatent(model) + 1;
}

/**
 * Frames of the network's input for a clip of `frames`.
 *
 * @throws UsageError if the model draws still pictures, or cannot draw so many frames
 */
export function latentFrames(frames: number, model: SizedModel): number {
  const { name, network } = model;
  const { frames: sizes } = imageSizes(network);
  const own = ownFrames(model);
  if (own === undefined || !sizes) {
    throw new UsageError(`${name} draws still pictures, which have no frames; leave frames out.`);
  }
  if (sizes.fixed && frames !== own) {
    throw new UsageError(
      `${name} cannot draw ${frames} frames: it was trained for ${own} only; leave frames out.`,
    );
  }
  const each = framesPerLatent(model);
  const latents = (frames - 1) / each + 1;
  if (!Number.isInteger(latents / sizes.unit)) {
    const near = Math.max(1, Math.round(latents / sizes.unit)) * sizes.unit;
    const wanted = (near - 1) * each + 1;
    throw new UsageError(
      `${name} cannot draw ${frames} frames: after the first, it draws ${each * sizes.unit} at a time; give ${wanted} frames.`,
    );
  }
  const most = sizes.most ?? Infinity;
  if (latents <= most) return latents;
  throw new UsageError(
    `${name} cannot draw ${frames} frames: its positions end at ${(most - 1) * each + 1}; give fewer.`,
  );
}

/** `frames`, if the model can draw so many. @throws UsageError as `latentFrames` */
export function checkedFrames(frames: number, model: SizedModel): number {
  latentFrames(frames, model);
  return frames;
}

/** Frames a second of the clips of a model; undefined for models of still pictures. */
export function ownRate({ network, defaults }: ImageModel): number | undefined {
  return network.frames === undefined ? undefined : (defaults.fps ?? USUAL_RATE);
}

/** Frames a second where a model does not say it, as Latte's are shown. */
const USUAL_RATE = 8;

/**
 * Returns the value of a setting that only clips have.
 *
 * @throws UsageError if the model draws still pictures
 */
export function ofClips<T>(setting: string, value: T, { name, network }: SizedModel): T {
  if (network.frames !== undefined) return value;
  throw new UsageError(
    `${name} draws still pictures, which have no ${setting}; leave ${setting} out.`,
  );
}
