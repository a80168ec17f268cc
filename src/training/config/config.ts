/** The fields of a training config, as in its YAML file, with their ranges and defaults. */
import * as z from "zod";
import { type DataConfig, dataSchema } from "../../data/config.ts";
import type { FramesShape, PictureShape } from "../../pictures/picture.ts";
import { timesSchema } from "../../diffusion/recipe.ts";
import { anyRecipeSchema } from "../../diffusion/discrete/discrete.ts";
import { samplingSchema } from "../../models/card.ts";
import { fromFamilies } from "../../models/families.ts";
import { fixedTypes } from "../fixed-weights.ts";
import { optimizerDefaults } from "../optimizers.ts";
import { featureSchema, maskedSchema, routingSchema } from "./further-settings.ts";
import { modelSchema } from "./model-settings.ts";
import { rankFields } from "./rank-settings.ts";

const count = z.int().min(1);
const share = z.number().min(0).max(1);
/** The decay of a moving average in [0, 1): at 1 it would never move. */
const decay = z.number().min(0).lt(1);

/** Accepts null for an absent field, so that --set can remove it. */
function unset<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

/** A side of a picture in pixels. */
const pixels = count.max(2 ** 14);
const size = z.union([pixels, z.tuple([pixels, pixels])]);

/** With Muon, these are also the settings of the AdamW that updates everything but the hidden matrices. */
const optimizerFields = {
  /** The learning rate after the warm-up, above 0; 1e-3 by default. */
  rate: z.number().positive().default(1e-3),
  /** Decay of the running mean of the gradient, in [0, 1); 0.9 by default. */
  beta1: decay.default(optimizerDefaults.beta1),
  /** Decay of the running mean of the squared gradient, in [0, 1); 0.99 by default. */
  beta2: decay.default(optimizerDefaults.beta2),
  /** A number above 0 that is added to the root of the squared gradient's mean; 1e-8 by default. */
  epsilon: z.number().positive().default(optimizerDefaults.epsilon),
  /** The share of each weight that a step takes away, times the learning rate; from 0, and 0 by default. */
  weightDecay: z.number().min(0).default(optimizerDefaults.weightDecay),
};

const optimizerSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("adamw"), ...optimizerFields }),
  z.strictObject({
    kind: z.literal("muon"),
    /** Decay of Muon's running mean of gradients, in [0, 1); 0.95 by default. */
    momentum: decay.default(optimizerDefaults.momentum),
    ...optimizerFields,
  }),
]);

const decaySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({
    /** The curve on which the learning rate falls. */
    kind: z.enum(["linear", "cosine"]),
    /** The last share of the training, in (0, 1], during which it falls; 0.35 by default. */
    over: z.number().gt(0).max(1).default(0.35),
    /** The share of the learning rate that is left at the end, in [0, 1]; 0 by default. */
    to: share.default(0),
  }),
]);

/** Fields of every `training`. */
const optimizationFields = {
  /** Images per batch, a whole number from 1 to 2²⁰; 64 by default. */
  batch: count.max(2 ** 20).default(64),
  /** Batches per step, whose gradients are averaged, from 1; 1 by default. */
  accumulate: count.default(1),
  /** The length of the training in steps, a whole number from 1. */
  steps: unset(count),
  /** The length in minutes; the learning rate then follows the clock, so runs are not reproducible bit for bit. */
  minutes: unset(z.number().positive()),
  /** The length in 10¹² multiply-adds, three forward passes for each image (Peebles & Xie, 2023). */
  compute: unset(z.number().positive()),
  /** The optimizer: "adamw" (Loshchilov & Hutter, 2019), the default, or "muon" (Jordan et al., 2024) for the hidden matrices. */
  optimizer: optimizerSchema.prefault({ kind: "adamw" }),
  /** Steps during which the learning rate rises from 0, a whole number from 0; 100 by default. */
  warmUp: z.int().min(0).default(100),
  /** How the learning rate falls towards the end: "none", "linear", the default, or "cosine". */
  decay: decaySchema.prefault({ kind: "linear" }),
  /** The largest norm of the gradient, to which longer ones are clipped; 1 by default, null for no clipping. */
  clip: z.number().positive().nullable().default(1),
  /** Decay of the moving average of the weights, with which the model draws, in (0, 1); 0.999 by default. */
  ema: z.number().gt(0).lt(1).default(0.999),
  /** Threads for CPU work; one per core by default. */
  threads: count.optional(),
  ...rankFields,
};

/** Fields of `training` for denoisers. */
const trainingFields = {
  ...optimizationFields,
  /** The share of examples whose condition is dropped, in [0, 1]; 0.1 by default. */
  dropCondition: share.default(0.1),
  /** What is done if more than half of the words of the captions are not in the vocabulary: the training is refused unless given. */
  unknownWords: z.enum(["refuse", "keep"]).optional(),
  /** Recomputes activations in the backward pass, which takes less memory and more time; false by default. */
  recompute: z.boolean().default(false),
};

const stepsOrMinutes = [
  ({ steps, minutes, compute }: { steps?: unknown; minutes?: unknown; compute?: unknown }) =>
    [steps, minutes, compute].filter((value) => value !== undefined).length === 1,
  { error: "give one of steps, minutes and compute, to say how long to train" },
] as const;

/** A trained folder or weights file to start from. */
const from = z.string().optional();

export const trainingSchema = z
  .strictObject({
    ...trainingFields,
    from,
    features: featureSchema.optional(),
    routing: routingSchema.optional(),
    masked: maskedSchema.optional(),
  })
  .refine(...stepsOrMinutes);

/** Trains on the latents or codes of an autoencoder in place of pixels. */
const latentsSchema = z.strictObject({
  /**
   * An autoencoder or VQGAN that `patchwise train` wrote, or that of Stable Diffusion: a folder in diffusers' layout, or a
   * .safetensors file. The codes of a VQGAN need `process: tokens`.
   */
  autoencoder: z.string().min(1, "a path cannot be empty"),
  /** The network sees (z − shift)·scale; both are those of the autoencoder by default. */
  scale: z.number().positive().optional(),
  /** Subtracted from the latents before they are scaled; that of the autoencoder by default. */
  shift: z.number().optional(),
  /** The folder for the latents of all pictures; `latents` in the output folder by default. */
  cache: z.string().min(1, "a path cannot be empty").optional(),
  /** The latents of a picture: the encoder's Gaussian sampled anew at each use ("sample"), or its mean ("mean"). */
  posterior: z.enum(["sample", "mean"]).default("sample"),
  /** The data type of the cached latents. */
  precision: z.enum(["float16", "float32"]).default("float16"),
});

const checkpointFields = {
  /** Steps between checkpoints. */
  steps: unset(count),
  /** Minutes between checkpoints; 5 if neither is given. */
  minutes: unset(z.number().positive()),
  /** The number of most recent checkpoints to keep. */
  keep: count.default(2),
};

/** The data type of the saved model: "float32", or "float16", which halves its file. */
const precision = z.enum(["float32", "float16"]);

const sampleFields = {
  /** Steps between sample grids; by default they are drawn at even distances. A last one is drawn at the end. */
  steps: unset(count),
  /** The number of sample grids of the whole training unless `steps` is given; 0 for none. */
  grids: z.int().min(0).max(1000).default(5),
};

const validationFields = {
  /** The pictures to measure the loss on; by default some that are held out of the training's own. */
  data: unset(dataSchema),
  /** The share of the pictures that is held out, by their names, unless `data` is given; 0 for none. */
  share: z.number().min(0).max(0.5).default(0.1),
  /** Steps between validations. */
  steps: count.default(500),
  /** Batches per validation. */
  batches: count.default(8),
};

/** Fields of every training config. */
const commonFields = {
  /** The name of the model; that of the output folder by default. */
  name: z.string().optional(),
  /** Seeds weights, batches, noise and samples. */
  seed: z.int().min(0).default(0),
  /** The pictures to train on. */
  data: dataSchema,
  /** How often metrics are written. */
  log: z
    .strictObject({
      /** Steps between lines of metrics. */
      steps: count.default(20),
    })
    .prefault({}),
};

/** Fields of training configs for denoisers. */
const denoiserFields = {
  ...commonFields,
  /** The grids that are drawn during the training, to look at. */
  samples: z
    .strictObject({
      ...sampleFields,
      /** Prompts or class names; by default the first captions or classes of the data. */
      of: z.array(z.string()).optional(),
      /** Pictures of each prompt or class. */
      each: count.default(4),
      /** The seed of these pictures, a whole number from 0; 0 by default. */
      seed: z.int().min(0).default(0),
    })
    .prefault({}),
  /** The loss on pictures that are not trained on. */
  validation: z
    .strictObject({
      ...validationFields,
      /** The distribution of times of a flow; that of the training by default. */
      times: timesSchema.optional(),
    })
    .prefault({}),
};

/** The size and channels to which every picture is converted. */
const picture = z.strictObject({
  /** Height and width in pixels, or one number for both, from 1 to 16384. */
  size,
  /** 1 for grey pictures, 3 for colours, the default. */
  channels: z.union([z.literal(1), z.literal(3)]).default(3),
});

/** The same for the frames of clips. */
const clips = z.strictObject({
  ...picture.shape,
  /** Frames of the clips that a model of clips learns; a still picture is a clip of one. */
  frames: count.max(2 ** 12).optional(),
  /** Frames a second with which drawn clips are shown. */
  fps: z.number().positive().max(1000).optional(),
});

/** The config of a training from scratch; the schema follows `registerFamily`. */
export const trainingConfigSchema = fromFamilies(() =>
  z.strictObject({
    ...denoiserFields,
    /** The size to which every picture is converted. */
    picture: clips,
    /** Trains on the latents or codes of an autoencoder; on pixels unless given. */
    latents: latentsSchema.optional(),
    /** The network: a family, a preset of it, and fields that override the preset. */
    model: modelSchema().prefault({}),
    /** The diffusion process and its loss; rectified flow by default. */
    diffusion: anyRecipeSchema.prefault({ process: "flow" }),
    /** The length of the training, and how it learns. */
    training: trainingSchema,
    /** The model's default sampling settings, also used for samples during the training. */
    sampling: samplingSchema.prefault({}),
    /** How often the state of the training is saved, and how many of these states are kept. */
    checkpoint: z
      .strictObject({
        ...checkpointFields,
        /** The data type of the saved model; float16 halves its file. */
        weights: precision.default("float32"),
      })
      .prefault({}),
  }),
);

export type TrainingConfig = z.output<ReturnType<typeof trainingConfigSchema>>;

/** A training config before defaults are filled in. */
export type TrainingConfigInput = z.input<ReturnType<typeof trainingConfigSchema>>;

/** The config of a LoRA. Picture size, network and sampling settings are those of its base. */
export const loraConfigSchema = z.strictObject({
  ...denoiserFields,
  /** The model to adapt: the name of a bundled model, or a folder that `patchwise train` wrote. */
  base: z.string().min(1, "a name cannot be empty"),
  /** The rank, the factor and the layers of the LoRA (Hu et al., 2022). */
  lora: z
    .strictObject({
      /** Rank of the matrices that are added to each layer, from 1; 8 by default. */
      rank: count.default(8),
      /** The product of the matrices is scaled by alpha / rank; alpha is the rank by default. */
      alpha: z.number().positive().optional(),
      /** Paths of layers, where * matches anything but dots and ** anything; those of the family by default. */
      targets: z.array(z.string().min(1, "a target cannot be empty")).min(1).optional(),
      /**
       * How products with the base are computed: in "float32", the default, or as 8-bit integers ("int8"), which takes less time and
       * rounds the base and what it multiplies.
       */
      base: z.enum(fixedTypes).default("float32"),
    })
    .transform((lora) => ({
      ...lora,
      /** The product of the matrices is scaled by alpha / rank. */
      alpha: lora.alpha ?? lora.rank,
    })),
  /** The length of the training, and how it learns. */
  training: z.strictObject(trainingFields).refine(...stepsOrMinutes),
  /** How often the state of the training is saved, and how many of these states are kept. */
  checkpoint: z
    .strictObject({ ...checkpointFields, weights: precision.default("float16") })
    .prefault({}),
});

export type LoraTrainingConfig = z.output<typeof loraConfigSchema>;

/** The config of an autoencoder or VQGAN, which other configs can name as `latents.autoencoder`. */
export const autoencoderConfigSchema = z.strictObject({
  ...commonFields,
  /** The size to which every picture is converted. */
  picture,
  /** The autoencoder to train: "vq" for codes, "kl" for latents. */
  autoencoder: z.discriminatedUnion("kind", [
    /** A VQGAN as in Paella, with a code for each square of 2^levels × 2^levels pixels. */
    z
      .strictObject({
        kind: z.literal("vq"),
        /** The number of times that height and width are halved, from 1; 2 by default. */
        levels: count.default(2),
        /** Channels at the lowest resolution; each level above has half of them. */
        hidden: count.default(128),
        /** Blocks of the decoder at the lowest resolution. */
        bottleneckBlocks: count.default(3),
        /** Channels of the latents, from 1; 4 by default. */
        latentChannels: count.default(4),
        /** The number of codes. */
        codebook: z.int().min(2).default(1024),
      })
      .refine(({ hidden, levels }) => hidden % 2 ** (levels - 1) === 0, {
        path: ["hidden"],
        error: "each level above has half of the channels, so give a multiple of 2^(levels − 1)",
      }),
    /** A KL autoencoder as in Stable Diffusion. */
    z
      .strictObject({
        kind: z.literal("kl"),
        /** Channels of each level from the highest resolution; each further level halves height and width. */
        widths: z.array(count).min(1).default([32, 64, 64]),
        /** Residual blocks per level of the encoder; the decoder has one more. */
        layers: count.default(1),
        /** Groups of channels in each norm, which divide all widths; 8 by default. */
        groups: count.default(8),
        /** True for attention at the lowest resolution, the default. */
        middleAttention: z.boolean().default(true),
        /** Channels of the latents, from 1; 4 by default. */
        latentChannels: count.default(4),
        /** The weight of the latents' KL divergence from a standard normal distribution, relative to the error of a pixel. */
        divergence: z.number().min(0).default(1e-4),
      })
      .refine(({ widths, groups }) => widths.every((width) => width % groups === 0), {
        path: ["widths"],
        error: "channels are normalized in groups, so give multiples of autoencoder.groups",
      }),
  ]),
  /** The length of the training, and how it learns. */
  training: z.strictObject({ ...optimizationFields, from }).refine(...stepsOrMinutes),
  /** The grids that are drawn during the training, to look at. */
  samples: z
    .strictObject({
      ...sampleFields,
      /** The number of pictures, each shown above its reconstruction. */
      pictures: count.default(12),
    })
    .prefault({}),
  /** The loss on pictures that are not trained on. */
  validation: z.strictObject(validationFields).prefault({}),
  /** How often the state of the training is saved, and how many of these states are kept. */
  checkpoint: z
    .strictObject({ ...checkpointFields, weights: precision.default("float32") })
    .prefault({}),
});

export type AutoencoderTrainingConfig = z.output<typeof autoencoderConfigSchema>;

/** The fields of a config that the training loop reads, for every kind of training. */
export interface RunConfig extends Pick<
  AutoencoderTrainingConfig,
  "name" | "seed" | "data" | "log" | "picture" | "training"
> {
  readonly checkpoint: Omit<AutoencoderTrainingConfig["checkpoint"], "weights">;
  readonly samples: Pick<AutoencoderTrainingConfig["samples"], "steps" | "grids">;
  readonly validation: AutoencoderTrainingConfig["validation"] & {
    /** True if the training's own pictures are used if there are no others. */
    readonly own?: boolean;
  };
  readonly latents?: TrainingConfig["latents"];
}

/** A config whose pictures may be frames of clips. */
export interface FramesConfig {
  readonly picture: RunConfig["picture"] & {
    readonly frames?: number | undefined;
    readonly fps?: number | undefined;
  };
}

/** The config of a denoiser, whole or as a LoRA. */
export type DenoiserConfig = Omit<TrainingConfig, "model">;

type DataFields = Pick<RunConfig, "data" | "validation">;

/** The pictures to train on: without those that are held out, unless the config names others to measure the loss on. */
export function trainingData({ data, validation }: DataFields): DataConfig {
  if (validation.data || validation.share === 0) return data;
  return { ...data, part: { share: validation.share, of: "rest" } };
}

/**
 * The pictures to measure the loss on, if there are some.
 *
 * @param heldOut the number of pictures that are held out of the training data; 0 if they are too few for that
 */
export function validationData(
  { data, validation }: DataFields,
  heldOut: number,
): { readonly data: DataConfig; readonly own: boolean } | undefined {
  if (validation.data) return { data: validation.data, own: false };
  if (heldOut > 0) {
    return { data: { ...data, part: { share: validation.share, of: "held" } }, own: false };
  }
  return validation.own ? { data, own: true } : undefined;
}

/** The shape of the pictures, even if the network sees their latents. */
export function pictureShape({
  picture: { size: side, channels },
}: Pick<RunConfig, "picture">): PictureShape {
  const [height, width] = typeof side === "number" ? [side, side] : side;
  return { height, width, channels };
}

/** The shape of what a model learns: pictures, or clips of frames. */
export function framesShape(config: FramesConfig): FramesShape {
  const { frames: own } = config.picture;
  return { ...pictureShape(config), ...(own !== undefined && { frames: own }) };
}

/** Lists the leaves of plain data by path, as JSON. A list is a leaf, and undefined values are omitted. */
export function flattened(value: unknown, path = ""): Map<string, string> {
  if (value === undefined) return new Map();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return new Map([[path, JSON.stringify(value)]]);
  }
  const parts = Object.entries(value).flatMap(([key, inner]) => [
    ...flattened(inner, path === "" ? key : `${path}.${key}`),
  ]);
  return new Map(parts);
}
