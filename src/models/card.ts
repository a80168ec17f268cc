/**
 * The card of a trained model, `model.json` in its folder: all that a stranger needs to draw with the weights beside it.
 */
import { ownLoraFile } from "../weights/lora-settings.ts";
import * as z from "zod";
import { anyRecipeSchema, type AnyRecipe } from "../diffusion/discrete/discrete.ts";
import { samplers, type SamplerName } from "../diffusion/samplers/index.ts";
import { FormatError } from "../engine/errors.ts";
import { defined } from "../engine/records.ts";
import { autoencoderKLSchema } from "./coders/autoencoder-kl-config.ts";
import { fromFamilies } from "./families.ts";
import { networkSchema } from "./network.ts";
import { vqganSchema } from "./coders/vqgan.ts";

/** Files of a model folder. */
export const modelFiles = {
  card: "model.json",
  weights: "model.safetensors",
  tokenizer: "tokenizer.json",
  /** The whole autoencoder of a model of latents, under diffusers' names. */
  autoencoder: "vae.safetensors",
  /** The whole VQ autoencoder of a model of codes, under Paella's names. */
  vqgan: "vqgan.safetensors",
  /** A LoRA, in a folder of its own. */
  lora: ownLoraFile,
} as const;

/** The sampler of codes: it draws all at once, then ever fewer of them again. */
export const tokenSampler = "renoise";

/** Sampling settings, each of which has a default. */
export const samplingSchema = z.strictObject({
  /** The sampling method; "euler" by default, and "renoise" for models of codes. */
  sampler: z
    .enum([...Object.keys(samplers), tokenSampler] as [
      SamplerName,
      ...SamplerName[],
      typeof tokenSampler,
    ])
    .optional(),
  /** The number of steps, a whole number from 1. */
  steps: z.int().min(1).optional(),
  /** Scale of classifier-free guidance (Ho & Salimans, 2022), from 0; 1 means none. */
  guidance: z.number().min(0).optional(),
  /** Frames a second of clips. */
  fps: z.number().positive().max(1000).optional(),
  /** Temperature of codes in the first and in the last step. */
  temperature: z.tuple([z.number().min(0), z.number().min(0)]).optional(),
});

type Sampling = z.output<typeof samplingSchema>;

/** Sampling settings with defaults for the fields that are missing. */
export function wholeSampling(
  given: Sampling,
  recipe: Pick<AnyRecipe, "process"> & { readonly meanFlow?: object | undefined },
): CardSampling {
  const { process } = recipe;
  const defaults: CardSampling =
    process === "tokens"
      ? { sampler: tokenSampler, steps: 8, guidance: 3, temperature: [1, 0.5] }
      : { sampler: "euler", steps: recipe.meanFlow ? 4 : 30, guidance: 3 };
  return { ...defaults, ...defined(given) };
}

const cardSampling = samplingSchema
  .required({ sampler: true, steps: true, guidance: true })
  .extend({
    /** False for a model that never learned to draw without its condition, from which guidance would lead away. */
    guidable: z.literal(false).optional(),
    /** Frames of a clip, where they are others than those of the network. */
    frames: z.int().min(1).optional(),
    /** Share of the noise that all frames of a clip have in common. */
    sharedNoise: z.number().min(0).max(1).optional(),
  });

type CardSampling = z.output<typeof cardSampling>;

/** The schema of a card; it follows `registerFamily`. */
export const cardSchema = fromFamilies(() =>
  z
    .strictObject({
      /** Tells the file from others. */
      format: z.literal("patchwise"),
      /** The version of the format. */
      version: z.literal(1),
      /** Name of the model, for people. */
      name: z.string(),
      /** The config of the network, which its family reads. */
      network: networkSchema(),
      /** The process with which it was trained and draws. */
      diffusion: anyRecipeSchema,
      /** Pictures that it draws; values of [0, 255] are [−1, 1] to the network, or to the autoencoder. */
      picture: z.strictObject({
        /** Height in pixels. */
        height: z.int().min(1),
        /** Width in pixels. */
        width: z.int().min(1),
        /** 1 for grey pictures, 3 for colours. */
        channels: z.union([z.literal(1), z.literal(3)]),
      }),
      /** For a network of latents: the config of the autoencoder that decodes them. */
      latents: z
        .strictObject({
          /** The config of the autoencoder. */
          autoencoder: autoencoderKLSchema,
        })
        .optional(),
      /** For a network of codes: the config of the VQ autoencoder that decodes them. */
      tokens: z
        .strictObject({
          /** The config of the VQ autoencoder. */
          tokenizer: vqganSchema,
        })
        .optional(),
      /** Names of the classes, in their order. */
      classes: z.array(z.string()).optional(),
      /** Default sampling settings. */
      sampling: cardSampling,
      /** Length of its training. */
      trained: z.strictObject({
        /** The number of steps. */
        steps: z.int().min(0),
        /** The number of pictures of all steps together. */
        images: z.int().min(0),
      }),
    })
    .superRefine(({ network, latents, tokens, diffusion }, context) => {
      const refuse = (field: string, message: string) =>
        context.addIssue({ code: "custom", path: [field], message });
      const channels = latents?.autoencoder.latentChannels ?? network.channels;
      if (network.channels !== channels) {
        refuse(
          "latents",
          `the network draws ${network.channels} channels, but the autoencoder decodes ${channels}`,
        );
      }
      const [drawn, decoded] = [network.tokens?.codebook, tokens?.tokenizer.codebook];
      if (drawn !== decoded) {
        refuse(
          "tokens",
          `the network draws ${codesOf(drawn)}, but the tokenizer decodes ${codesOf(decoded)}`,
        );
      }
      if ((diffusion.process === "tokens") !== (drawn !== undefined)) {
        refuse(
          "diffusion",
          `the process is ${diffusion.process}, but the network draws ${codesOf(drawn)}`,
        );
      }
    }),
);

function codesOf(codebook: number | undefined): string {
  return codebook === undefined ? "no tokens" : `tokens of a codebook of ${codebook}`;
}

export type Card = z.output<ReturnType<typeof cardSchema>>;

/**
 * Reads a card.
 *
 * @param file the file, for messages
 * @throws FormatError that names the first field at fault
 */
export function readCard(file: string, content: unknown): Card {
  const result = cardSchema().safeParse(content);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new FormatError(
    `${file} is not the model.json of a trained model (${issue.path.join(".") || "the whole"}: ${issue.message}); give a folder that patchwise train wrote.`,
  );
}
