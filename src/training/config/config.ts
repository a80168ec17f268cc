/** What a training is: the fields of its YAML file, their ranges and their defaults. */
import { z } from "zod";
import { dataSchema } from "../../data/config.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import { timesSchema } from "../../diffusion/recipe.ts";
import { anyRecipeSchema } from "../../diffusion/discrete/token-recipe.ts";
import { samplingSchema } from "../../models/card.ts";
import { fromFamilies } from "../../models/families.ts";
import { modelSchema } from "./model-settings.ts";

const count = z.int().min(1);
const share = z.number().min(0).max(1);
/** Of a moving average, which at 1 would never move. */
const decay = z.number().min(0).lt(1);

/** Where null says as much as nothing, so that --set can take a field away. */
function unset<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

const size = z.union([count, z.tuple([count, count])]);

const optimizerSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("adamw"),
    rate: z.number().positive().default(1e-3),
    beta1: decay.default(0.9),
    beta2: decay.default(0.99),
    epsilon: z.number().positive().default(1e-8),
    weightDecay: z.number().min(0).default(0),
  }),
  z.strictObject({
    kind: z.literal("muon"),
    rate: z.number().positive().default(1e-3),
    momentum: decay.default(0.95),
    weightDecay: z.number().min(0).default(0),
    /** Of the AdamW that moves all but the hidden matrices. */
    beta1: decay.default(0.9),
    beta2: decay.default(0.99),
    epsilon: z.number().positive().default(1e-8),
  }),
]);

const decaySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({
    kind: z.enum(["linear", "cosine"]),
    over: z.number().gt(0).max(1).default(0.35),
    to: share.default(0),
  }),
]);

/** What every optimization goes by. */
const optimizationFields = {
  /** Images in a step's batch. */
  batch: count.default(64),
  /** Batches whose gradients a step takes together. */
  accumulate: count.default(1),
  /** Ends after so many steps … */
  steps: unset(count),
  /** … or minutes of training, in which case the learning rate follows the clock and no two runs are bit-equal … */
  minutes: unset(z.number().positive()),
  /** … or Tflop of training, as Peebles & Xie (2023) count it: a forward pass's multiply-adds, three times for each image. */
  compute: unset(z.number().positive()),
  optimizer: optimizerSchema.prefault({ kind: "adamw" }),
  warmUp: z.int().min(0).default(100),
  decay: decaySchema.prefault({ kind: "linear" }),
  /** Longest gradient; null for any. */
  clip: z.number().positive().nullable().default(1),
  /** Decay of the weights' moving average, which is what draws. */
  ema: z.number().gt(0).lt(1).default(0.999),
  /** Threads for CPU work; as many as there are cores unless given. */
  threads: count.optional(),
};

/** Of networks that denoise. */
const trainingFields = {
  ...optimizationFields,
  /** Share of examples that are learned without their condition. */
  dropCondition: share.default(0.1),
  /** Computes activations again in the backward pass: less memory, more time. */
  recompute: z.boolean().default(false),
};

const stepsOrMinutes = [
  ({ steps, minutes, compute }: { steps?: unknown; minutes?: unknown; compute?: unknown }) =>
    [steps, minutes, compute].filter((value) => value !== undefined).length === 1,
  { error: "give one of steps, minutes and compute, to say how long to train" },
] as const;

/** A trained folder or weights file to start from. */
const from = z.string().optional();

const trainingSchema = z.strictObject({ ...trainingFields, from }).refine(...stepsOrMinutes);

/** Where the network works on the latents of an autoencoder in place of pixels. */
const latentsSchema = z.strictObject({
  /**
   * One that patchwise train made, or Stable Diffusion's: a folder in diffusers' layout, or a .safetensors file. Of a VQ
   * tokenizer the latents are tokens, for a process of tokens.
   */
  autoencoder: z.string().min(1, "a path cannot be empty"),
  /** Latents become (z − shift)·scale; as the autoencoder says unless given. */
  scale: z.number().positive().optional(),
  shift: z.number().optional(),
  /** Folder for what the encoder says of each picture; `latents` in the output folder unless given. */
  cache: z.string().min(1, "a path cannot be empty").optional(),
  /** A sample of the encoder's Gaussian each time a picture is shown, or always its mean. */
  posterior: z.enum(["sample", "mean"]).default("sample"),
  /** Of the latents in the cache. */
  precision: z.enum(["float16", "float32"]).default("float16"),
});

const checkpointFields = {
  /** Steps between checkpoints … */
  steps: unset(count),
  /** … or minutes; 5 unless either is given. */
  minutes: unset(z.number().positive()),
  /** How many of the last are kept. */
  keep: count.default(2),
};

const precision = z.enum(["float32", "float16"]);

/** Steps between sample grids; none unless given. */
const sampleSteps = unset(count);

const validationFields = {
  data: dataSchema,
  /** Steps between measurements. */
  steps: count.default(500),
  /** Batches to measure on. */
  batches: count.default(8),
};

/** What every training has. */
const commonFields = {
  /** What the model is called; the output folder's name unless given. */
  name: z.string().optional(),
  /** Of weights, batches, noise and samples. */
  seed: z.int().min(0).default(0),
  data: dataSchema,
  log: z
    .strictObject({
      /** Steps between lines of metrics. */
      steps: count.default(20),
    })
    .prefault({}),
};

/** What those of networks that denoise have. */
const denoiserFields = {
  ...commonFields,
  samples: z
    .strictObject({
      steps: sampleSteps,
      /** Prompts, or names of classes; every class, or nothing in particular, unless given. */
      of: z.array(z.string()).optional(),
      /** Pictures of each. */
      each: count.default(4),
      seed: z.int().min(0).default(0),
    })
    .prefault({}),
  validation: z
    .strictObject({
      ...validationFields,
      /** Of a flow, which times to measure at; those of the training unless given. */
      times: timesSchema.optional(),
    })
    .optional(),
};

/** What every picture is made to be. */
const picture = z.strictObject({
  size,
  channels: z.union([z.literal(1), z.literal(3)]).default(3),
});

/** A training from scratch; the schema follows `registerFamily`. */
export const trainingConfigSchema = fromFamilies(() =>
  z.strictObject({
    ...denoiserFields,
    picture,
    latents: latentsSchema.optional(),
    model: modelSchema().prefault({}),
    diffusion: anyRecipeSchema.prefault({ process: "flow" }),
    training: trainingSchema,
    /** How the model draws unless told otherwise, and while it trains. */
    sampling: samplingSchema.prefault({}),
    checkpoint: z
      .strictObject({
        ...checkpointFields,
        /** How the model that draws is stored; float16 halves its file. */
        weights: precision.default("float32"),
      })
      .prefault({}),
  }),
);

export type TrainingConfig = z.output<ReturnType<typeof trainingConfigSchema>>;

/** A training config before defaults are filled in. */
export type TrainingConfigInput = z.input<ReturnType<typeof trainingConfigSchema>>;

/** Of a LoRA: what pictures are made to be, what the network is and how it draws are its base's. */
export const loraConfigSchema = z.strictObject({
  ...denoiserFields,
  /** The model that it changes: the name of one that comes along, or a trained folder. */
  base: z.string().min(1, "a name cannot be empty"),
  lora: z
    .strictObject({
      rank: count.default(8),
      /** As many times as alpha / rank it counts; the rank unless given. */
      alpha: z.number().positive().optional(),
      /** Linear layers by path, with * for anything but dots and ** for anything; those of the family unless given. */
      targets: z.array(z.string().min(1, "a target cannot be empty")).min(1).optional(),
    })
    .transform((lora) => ({ ...lora, alpha: lora.alpha ?? lora.rank })),
  training: z.strictObject(trainingFields).refine(...stepsOrMinutes),
  checkpoint: z
    .strictObject({ ...checkpointFields, weights: precision.default("float16") })
    .prefault({}),
});

export type LoraTrainingConfig = z.output<typeof loraConfigSchema>;

/** Of what makes latents, or tokens, of pictures and back: for later trainings to name as `latents.autoencoder`. */
export const autoencoderConfigSchema = z.strictObject({
  ...commonFields,
  picture,
  autoencoder: z.discriminatedUnion("kind", [
    /** Paella's VQGAN at another size: a token of a codebook for each square of 2^levels pixels. */
    z
      .strictObject({
        kind: z.literal("vq"),
        levels: count.default(2),
        /** Channels at the lowest resolution; each level above has half of them. */
        hidden: count.default(128),
        /** Of the decoder at the lowest resolution. */
        bottleneckBlocks: count.default(3),
        latentChannels: count.default(4),
        /** Number of codes. */
        codebook: z.int().min(2).default(1024),
      })
      .refine(({ hidden, levels }) => hidden % 2 ** (levels - 1) === 0, {
        path: ["hidden"],
        error: "each level above has half of the channels, so give a multiple of 2^(levels − 1)",
      }),
    /** Stable Diffusion's autoencoder at another size. */
    z
      .strictObject({
        kind: z.literal("kl"),
        /** Of each level, from full size down; every further level halves height and width. */
        widths: z.array(count).min(1).default([32, 64, 64]),
        /** Residual blocks of a level of the encoder; the decoder has one more. */
        layers: count.default(1),
        groups: count.default(8),
        middleAttention: z.boolean().default(true),
        latentChannels: count.default(4),
        /** How much the latents' distance to a standard normal distribution counts beside the error of a pixel. */
        divergence: z.number().min(0).default(1e-4),
      })
      .refine(({ widths, groups }) => widths.every((width) => width % groups === 0), {
        path: ["widths"],
        error: "channels are normed in groups, so give multiples of autoencoder.groups",
      }),
  ]),
  training: z.strictObject({ ...optimizationFields, from }).refine(...stepsOrMinutes),
  samples: z
    .strictObject({
      steps: sampleSteps,
      /** Pictures that are shown, above what becomes of them. */
      pictures: count.default(12),
    })
    .prefault({}),
  validation: z.strictObject(validationFields).optional(),
  checkpoint: z
    .strictObject({ ...checkpointFields, weights: precision.default("float32") })
    .prefault({}),
});

export type AutoencoderTrainingConfig = z.output<typeof autoencoderConfigSchema>;

/** What the steps of a training go by, whatever it changes. */
export interface RunConfig extends Pick<
  AutoencoderTrainingConfig,
  "name" | "seed" | "data" | "log" | "picture" | "training"
> {
  readonly checkpoint: Omit<AutoencoderTrainingConfig["checkpoint"], "weights">;
  readonly samples: { readonly steps?: number | undefined };
  readonly validation?:
    | (NonNullable<AutoencoderTrainingConfig["validation"]> & {
        /** Whether it is of the pictures that are trained on. */
        readonly own?: boolean;
      })
    | undefined;
  readonly latents?: TrainingConfig["latents"];
}

/** Of networks that denoise. */
export type DenoiserConfig = Omit<TrainingConfig, "model">;

/** Of the pictures, whose latents the network may see in their place. */
export function pictureShape({
  picture: { size: side, channels },
}: Pick<RunConfig, "picture">): PictureShape {
  const [height, width] = typeof side === "number" ? [side, side] : side;
  return { height, width, channels };
}

/** The leaves of plain data by path, as JSON. A list is a leaf, and undefined values are left out. */
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
