/**
 * The settings of a generation. `settings` has one row for each: its type and range, where its value comes from if a request
 * gives none, how the command line spells it, and whether pictures record it. The types of requests, the options and help
 * of `patchwise generate`, the checks, the metadata of pictures and the JSON schema of requests all follow from the rows, so
 * that a new setting is a new row here and the place that uses it.
 */
import * as z from "zod";
import { levelsOfStrength, type NoiseLevel } from "../diffusion/levels.ts";
import { cacheModes } from "../diffusion/step-cache.ts";
import { kinds, requireKind } from "../engine/options.ts";
import { type SamplerName, samplers } from "../diffusion/samplers/index.ts";
import { UsageError } from "../engine/errors.ts";
import { pick } from "../engine/records.ts";
import { samplingSchema, tokenSampler } from "../models/card.ts";
import { canDrop } from "../models/network.ts";
import type { Picture } from "../pictures/picture.ts";
import { readSize } from "../pictures/size-text.ts";
import { checkedCache, computations, type DrawingProgress } from "./compute.ts";
import {
  type Condition,
  resolveCondition,
  resolveNegative,
  unconditional,
  warningsOf,
} from "./conditions.ts";
import { clipSettings } from "./clip-settings.ts";
import { checkGivenFrames } from "./given-frames.ts";
import { checkGivenImage, maskWarnings } from "./given-image.ts";
import { givenSettings } from "./given-settings.ts";
import { checkGuidingItself } from "./mean-flow.ts";
import {
  type ImageModel,
  latentSize,
  sizeWarnings,
  type MergedLora,
  pictureSize,
} from "./image-model.ts";
import { fittedReferences, referenceSize } from "./references.ts";
import { drawnAtATime } from "./roll-out.ts";
import { skipLayersSetting } from "./skip-layers.ts";
import {
  checkedFields,
  jsonSchemaOf,
  setting,
  type SettingDefaults,
  type SettingRow,
} from "./setting.ts";

const number = z.number();
const nonNegative = number.min(0);
const counted = { type: z.int().min(1).max(100_000), expected: "a whole number from 1 to 100000" };
const side = { type: z.int().min(1), expected: "a whole number of pixels" };

/** Any text as far as this table checks: the model's process knows its samplers, and names the nearest one. */
type AnySampler = SamplerName | typeof tokenSampler | (string & Record<never, never>);
const samplerName: z.ZodType<AnySampler, AnySampler> = z.string();

const seedHelp = "seed of the first picture; random unless given";

export const settings = {
  /** What to draw: the prompt. Models that take prompts need one, and others take none. */
  prompt: setting({
    type: z.string(),
    expected: "a text",
    help: "what to draw, for models that take prompts",
    flags: [],
  }),
  /** What to draw: the name of a class, or its number from 0. Models that draw classes need one, and others take none. */
  class: setting({
    type: z.union([z.string(), z.int().min(0)]),
    expected: "the name or number of a class",
    help: "what to draw, for models that draw classes",
    flags: [{ flag: "--class <name|number>", parse: "text" }],
  }),
  /** What guidance leads away from: a prompt, or the name of a class for models that draw classes. No condition by default. */
  negativePrompt: setting({
    type: z.string(),
    expected: "a prompt or a class to lead away from",
    help: "what guidance leads away from: a prompt, or a class",
    flags: [{ flag: "--negative <text>", parse: "text" }],
    aliases: ["negative", "negative_prompt"],
  }),
  /** Seed of the first picture, a whole number from 0; each further picture has the next one. 0 by default. */
  seed: setting({
    type: z.int().min(0),
    expected: `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
    help: "seed of the first picture, each further one having the next",
    flags: [{ flag: "--seed <n>", parse: "number", help: seedHelp }],
    default: () => 0,
  }),
  /** Number of pictures, a whole number from 1, whose seeds follow one another. 1 by default. */
  count: setting({
    ...counted,
    help: "number of pictures, whose seeds follow one another",
    flags: [{ flag: "--count <n>", parse: "number" }],
    aliases: ["n", "numImagesPerPrompt", "num_images_per_prompt", "numImages", "num_images"],
    unrecorded: true,
    default: () => 1,
  }),
  /** Sampling steps, a whole number from 1: more take longer and give finer pictures. The model's own number by default. */
  steps: setting({
    ...counted,
    help: "sampling steps; the model's own number unless given",
    flags: [{ flag: "--steps <n>", parse: "number" }],
    aliases: ["numInferenceSteps", "num_inference_steps"],
    default: ({ model }) => model.defaults.steps,
  }),
  /** Sampling method: the name of a sampler, or `renoise`, the only one for models of codes. The model's own by default. */
  sampler: setting({
    type: samplerName,
    expected: "the name of a sampler",
    help: `sampling method, the model's own unless given: ${Object.keys(samplers).join(", ")}; ${tokenSampler} for models of codes`,
    flags: [{ flag: "--sampler <name>", parse: "text" }],
    default: ({ model }) => model.process.sampler,
    forModel(name, { process }) {
      process.checkSampler(name);
      return name;
    },
  }),
  /**
   * Scale of classifier-free guidance from 0 to 1000: higher values follow the prompt or class more closely, 1 means none. The model's own by default.
   */
  guidance: setting({
    type: nonNegative.max(1000),
    expected: "a number from 0 to 1000, where 1 means no guidance",
    help: "scale of classifier-free guidance; 1 means none",
    flags: [{ flag: "--guidance <g>", parse: "number" }],
    aliases: ["guidanceScale", "guidance_scale"],
    default: ({ model, guidable }) => (guidable ? model.defaults.guidance : 1),
  }),
  /** Number of channels, from the first, that guidance applies to: from 1 to those of the model, and its own number by default. */
  guidedChannels: setting({
    ...counted,
    help: "number of channels, from the first, that guidance applies to",
    flags: [{ flag: "--guided-channels <n>", parse: "number" }],
    only: "continuous",
    default: ({ model }) => model.defaults.guidedChannels,
    forModel(channels, { name, network }) {
      if (channels <= network.channels) return channels;
      throw new UsageError(
        `guidedChannels must be a whole number from 1 to ${network.channels} for ${name}, got ${channels}.`,
      );
    },
  }),
  /**
   * Guides only where the ratio of noise to signal, sigma / alpha, is in the interval (above, upTo], both at least 0 (Kynkäänniemi et al., 2024).
   * That of pure noise counts as 1e9, so that [0, 1e9] is everywhere. The model's own by default, which for most models is everywhere.
   */
  guidanceInterval: setting({
    type: z
      .tuple([nonNegative, nonNegative])
      .readonly()
      .refine(([above, upTo]) => above < upTo),
    expected: "two numbers of at least 0, the smaller one first",
    help: "guide only where the ratio of noise to signal is in this interval; 0,1e9 is everywhere",
    flags: [{ flag: "--guidance-interval <above,upto>", parse: "pair" }],
    only: "continuous",
    default: ({ model }) => model.defaults.guidedBetween,
  }),
  /**
   * How far guided predictions get the contrast of unguided ones back, from 0 (not at all, the default) to 1: φ of Lin et al., 2024, eq. 16,
   * where the paper's value is 0.7.
   */
  rescale: setting({
    type: nonNegative.max(1),
    expected: "a number from 0 (not at all) to 1 (fully)",
    help: "how far guided predictions get the contrast of unguided ones back, from 0 to 1",
    flags: [{ flag: "--rescale <share>", parse: "number" }],
    aliases: ["guidanceRescale", "guidance_rescale"],
    only: "continuous",
  }),
  /**
   * Leads away from the prediction without these layers (numbers from 0), by `scale` (2.8 by default), in the steps between the shares `from` and
   * `to` of all steps (0.01 and 0.2 by default), as for Stable Diffusion 3.5. No layers by default.
   */
  skipLayers: skipLayersSetting,
  /**
   * Temperatures in the first and the last step, each at least 0, for models of codes: 0 takes the likeliest ones. The model's own by default, or
   * [1, 1].
   */
  temperature: setting({
    type: samplingSchema.shape.temperature.unwrap().readonly(),
    expected: "two numbers of at least 0, for the first and the last step",
    help: "temperature of token models in the first and the last step; 0 takes the likeliest tokens",
    flags: [{ flag: "--temperature <first,last>", parse: "pair" }],
    only: "tokens",
    default: ({ model: { process, defaults } }) =>
      process.kind === "tokens" ? (defaults.temperature ?? ([1, 1] as const)) : undefined,
  }),
  /** Time shift of rectified flow, above 0: values above 1 spend more steps at high noise, 1 means none. The model's own by default. */
  shift: setting({
    type: number.positive(),
    expected: "a number above 0, where 1 means no shift",
    help: "time shift of rectified flow, above 1 for more steps at high noise; the model's own unless given",
    flags: [{ flag: "--shift <s>", parse: "number" }],
  }),
  /** Numbers that the network's layers are computed in: `int8` is faster on cpu and wasm, and changes pictures a little. float32 by default. */
  compute: setting({
    type: z.enum(computations),
    expected: `one of ${computations.join(", ")}`,
    help: `numbers that the network's layers are computed in: float32 unless given, or int8, which is faster on cpu and wasm and changes pictures a little`,
    flags: [{ flag: "--compute <numbers>", parse: "text" }],
  }),
  /** How freely the network's output is extrapolated from earlier steps instead of computed (see `step-cache.ts`); off by default. */
  cache: setting({
    type: z.enum(cacheModes),
    expected: `one of ${cacheModes.join(", ")}`,
    help: "how freely the network's output is extrapolated from earlier steps instead of computed: off unless given, careful or fast",
    flags: [{ flag: "--cache <mode>", parse: "text" }],
    only: "continuous",
    forModel: checkedCache,
  }),
  /** Width in pixels, a multiple of what the model asks for. That of a given image by default, or the model's own. */
  width: setting({
    ...side,
    help: "width in pixels; the model's own unless given",
    flags: [{ flag: "--width <pixels>", parse: "number" }],
    default: ({ model, like }) => like?.width ?? pictureSize({}, model).width,
  }),
  /** Height in pixels, a multiple of what the model asks for. That of a given image by default, or the model's own. */
  height: setting({
    ...side,
    help: "height in pixels; the model's own unless given",
    flags: [{ flag: "--height <pixels>", parse: "number" }],
    default: ({ model, like }) => like?.height ?? pictureSize({}, model).height,
  }),
  ...clipSettings,
  ...givenSettings,
};

type Rows = typeof settings;
export type SettingName = keyof Rows;

export const settingNames = Object.keys(settings) as SettingName[];

/** A row as code that goes through all of them sees it. */
export function settingRow(name: SettingName): SettingRow {
  return settings[name];
}

/** Over `keyof`, so that editors show each row's comment. */
type Given<R extends Readonly<Record<string, SettingRow>>> = {
  readonly [N in keyof R]?: z.input<R[N]["type"]> | undefined;
};

/** What to draw and how. Settings that are not given have the model's own values; see `settings` for each. */
export interface GenerateRequest
  extends Given<typeof clipSettings>, Given<typeof givenSettings>, Given<Rows> {
  /** Ends drawing before the next step, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Width and height in pixels in one text, such as "64x48". */
  readonly size?: string | undefined;
  /** Called after each step. */
  readonly onProgress?: ((progress: DrawingProgress) => void) | undefined;
}

/** Settings with a default that every model has; the values of others may be undefined. */
type AlwaysKnown = {
  [N in SettingName]: Rows[N] extends SettingRow<z.ZodType, infer D>
    ? undefined extends D
      ? never
      : N
    : never;
}[SettingName];
type Value<N extends SettingName> = z.output<Rows[N]["type"]>;
type Shown = Exclude<
  SettingName,
  "image" | "lastImage" | "extend" | "mask" | "references" | "class"
>;

/** A request with all its settings resolved: the same settings give the same pictures. */
export type GenerateSettings = {
  readonly [N in keyof Rows as N extends Shown & AlwaysKnown ? N : never]: Value<N>;
} & {
  readonly [N in keyof Rows as N extends Exclude<Shown, AlwaysKnown> ? N : never]?: Value<N>;
} & {
  /** The name of the class that is drawn. */ readonly class?: string;
  /** True if a mask says which part of the image is drawn anew. */
  readonly masked?: boolean;
  /** The number of reference pictures. */
  readonly referred?: number;
  /** True if frames of the clip were given. */
  readonly aroundFrames?: boolean;
  /** The LoRAs that were merged into the model when it was opened. */
  readonly loras?: readonly MergedLora[];
  /** Sentences about parts of the request that have no effect, such as text past the token limit. */
  readonly warnings: readonly string[];
};

export interface ResolvedRequest {
  readonly settings: GenerateSettings;
  readonly condition: Condition;
  readonly negative: Condition;
  /** The reference pictures, fitted for the encoder. */
  readonly references: readonly Picture[];
  /** The noise levels to go through. */
  readonly levels: readonly NoiseLevel[];
}

/**
 * Checks a request and fills in the model's own settings.
 *
 * @throws UsageError that names the setting at fault, what was expected and what was given
 */
export function resolveRequest(request: GenerateRequest, model: ImageModel): ResolvedRequest {
  const given = checkedRequest(request);
  const condition = resolveCondition(given, model);
  const negative = resolveNegative(given.negativePrompt, model);
  const dropped = canDrop(model.network) && model.defaults.guidable !== false;
  const canGuide = dropped || given.negativePrompt !== undefined;
  const defaults: SettingDefaults = {
    model,
    image: given.image,
    mask: given.mask,
    like: given.image ?? given.extend ?? given.lastImage ?? referenceSize(given.references, model),
    guidable: canGuide && condition !== unconditional,
  };
  const values: Record<string, unknown> = {};
  for (const name of settingNames) {
    const row = settingRow(name);
    checkApplies(name, given[name], model);
    const value = given[name] ?? row.default?.(defaults);
    if (value === undefined) continue;
    values[name] = row.forModel ? row.forModel(value, model) : value;
  }
  const { image, lastImage, extend, mask, references: _, ...rest } = values;
  const references = fittedReferences(given.references, model);
  const resolved = rest as unknown as Omit<GenerateSettings, "warnings">;
  checkGuidance(resolved, canGuide, model);
  if (model.process.guidesItself) checkGuidingItself(given, model.name);
  checkSeeds(resolved);
  checkGivenFrames(given, resolved, model);
  const ofClip = model.network.frames !== undefined;
  if (!ofClip) checkGivenImage(given, resolved);
  const aroundFrames = ofClip && [image, lastImage, extend].some((each) => each !== undefined);
  const { steps, shift, strength } = resolved;
  const schedule = model.process.levels(steps, {
    size: latentSize(resolved, model),
    frames: drawnAtATime(resolved, model),
    shift,
  });
  return {
    condition,
    negative,
    references,
    levels: strength === undefined ? schedule : levelsOfStrength(schedule, steps, strength),
    settings: {
      ...resolved,
      ...(condition.kind === "class" && { class: condition.name }),
      ...(mask !== undefined && { masked: true }),
      ...(references.length > 0 && { referred: references.length }),
      ...(aroundFrames && { aroundFrames: true }),
      ...(model.loras && { loras: model.loras }),
      warnings: [
        ...warningsOf({ condition, negative, ...resolved }, model),
        ...sizeWarnings(resolved, model),
        ...maskWarnings(given.mask),
      ],
    },
  };
}

/** Option names of other libraries whose counterpart has another form. */
const elsewhere: Readonly<Record<string, string>> = {
  generator: "seed",
  callback: "onProgress",
  callback_on_step_end: "onProgress",
};

/** Fields of resolved settings that report something and ask for nothing. */
const reported = new Set(["masked", "referred", "aroundFrames", "loras", "warnings"]);

/**
 * A request under the settings' own names, each value checked by its row.
 *
 * @throws UsageError for an unknown name, a setting given twice, or a value of another type or out of range
 */
export function checkedRequest(request: object): GenerateRequest {
  requireKind("a request", request, kinds.object);
  const { signal, onProgress, size, ...fields } = request as Record<string, unknown>;
  if (signal !== undefined) requireKind("signal", signal, kinds.abortSignal);
  if (onProgress !== undefined) requireKind("onProgress", onProgress, kinds.callback);
  const asked = Object.entries(fields).filter(([name]) => !reported.has(name));
  const text = typeof size === "string" ? size : JSON.stringify(size);
  const sides = size === undefined ? [] : Object.entries(readSize(text, "size"));
  const beside = ["size", "signal", "onProgress"];
  const given = checkedFields(settings, [...asked, ...sides], elsewhere, beside);
  return { ...given, signal, onProgress } as GenerateRequest;
}

/**
 * The settings of a request as a JSON schema (draft 2020-12), for HTTP bodies and forms. Pictures are base64 of an image file.
 *
 * @example generateRequestSchema().properties.steps // { type: "integer", minimum: 1, description: "sampling steps; …" }
 */
export function generateRequestSchema(): object {
  return jsonSchemaOf(settings);
}

/**
 * The settings that the metadata of a picture records, for drawing it again.
 *
 * @param seed of the picture itself
 */
export function recordedSettings(
  resolved: GenerateSettings,
  seed: number,
): Readonly<Record<string, unknown>> &
  Pick<GenerateSettings, "seed" | "steps" | "guidance" | "sampler" | "width" | "height"> {
  const { warnings: _, ...rest } = resolved;
  const kept = pick<unknown>(
    rest,
    (name) => !Object.hasOwn(settings, name) || !settingRow(name as SettingName).unrecorded,
  );
  return { ...(kept as unknown as GenerateSettings), seed };
}

/** Layers that some rows of a run skip; empty if skip-layer guidance has no effect. */
export function skippedLayers({ skipLayers }: GenerateSettings): readonly number[] {
  return skipLayers && skipLayers.scale !== 0 ? skipLayers.layers : [];
}

function checkApplies(name: SettingName, value: unknown, { name: model, process }: ImageModel) {
  const { only } = settingRow(name);
  if (value === undefined || only === undefined || only === process.kind) return;
  throw new UsageError(
    `${name} does not apply to ${model}, which draws ${process.kind === "tokens" ? "discrete tokens" : "no discrete tokens"}; leave it out.`,
  );
}

function checkGuidance(
  { guidance }: Pick<GenerateSettings, "guidance">,
  canGuide: boolean,
  { name, network }: ImageModel,
): void {
  if (guidance === 1 || canGuide) return;
  throw new UsageError(
    network.condition.kind === "none"
      ? `${name} is unconditional, so a guidance of ${guidance} has nothing to guide towards; leave it out.`
      : `${name} was not trained without a condition, which a guidance of ${guidance} needs; leave it out, or give a negative class to lead away from.`,
  );
}

function checkSeeds({ seed, count }: Pick<GenerateSettings, "seed" | "count">): void {
  const most = Number.MAX_SAFE_INTEGER - count + 1;
  if (seed <= most) return;
  throw new UsageError(
    `seed must be a whole number from 0 to ${most} for ${count} pictures, got ${seed}.`,
  );
}
