/**
 * The card of a trained model, `model.json` in its folder: all that a stranger needs to draw with the weights beside it.
 */
import { z } from "zod";
import { recipeSchema } from "../diffusion/recipe.ts";
import { samplers, type SamplerName } from "../diffusion/samplers/index.ts";
import { FormatError } from "../engine/errors.ts";
import { autoencoderKLSchema } from "./autoencoder-kl-schema.ts";
import { networkSchema } from "./index.ts";

/** Files of a model folder. */
export const modelFiles = {
  card: "model.json",
  weights: "model.safetensors",
  tokenizer: "tokenizer.json",
  /** Of models of latents: the autoencoder, whole, under diffusers' names. */
  autoencoder: "vae.safetensors",
  /** Of LoRA: in a folder of its own. */
  lora: "lora.safetensors",
} as const;

export const samplingSchema = z.strictObject({
  sampler: z.enum(Object.keys(samplers) as [SamplerName, ...SamplerName[]]).default("euler"),
  steps: z.int().min(1).default(30),
  guidance: z.number().min(0).default(3),
});

export const cardSchema = z
  .strictObject({
    format: z.literal("patchwise"),
    version: z.literal(1),
    /** What a person calls the model. */
    name: z.string(),
    network: networkSchema,
    diffusion: recipeSchema,
    /** Pictures that it draws; values of [0, 255] are [−1, 1] to the network, or to the autoencoder. */
    picture: z.strictObject({
      height: z.int().min(1),
      width: z.int().min(1),
      channels: z.union([z.literal(1), z.literal(3)]),
    }),
    /** Where the network draws latents: the config of the autoencoder that makes pictures of them. */
    latents: z.strictObject({ autoencoder: autoencoderKLSchema }).optional(),
    /** Names of the classes, in their order. */
    classes: z.array(z.string()).optional(),
    /** How to sample unless told otherwise. */
    sampling: samplingSchema,
    /** How long it was trained. */
    trained: z.strictObject({ steps: z.int().min(0), images: z.int().min(0) }),
  })
  .superRefine(({ network, latents }, context) => {
    const channels = latents?.autoencoder.latentChannels ?? network.channels;
    if (network.channels === channels) return;
    const message = `the network draws ${network.channels} channels, but the autoencoder decodes ${channels}`;
    context.addIssue({ code: "custom", path: ["latents"], message });
  });

export type Card = z.output<typeof cardSchema>;

/**
 * Reads a card.
 *
 * @param file how messages call it
 * @throws FormatError that names the first field at fault
 */
export function readCard(file: string, content: unknown): Card {
  const result = cardSchema.safeParse(content);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new FormatError(
    `${file} is not the card of a trained model (${issue.path.join(".") || "the whole"}: ${issue.message}); give a folder that patchwise train wrote.`,
  );
}
