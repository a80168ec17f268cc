/**
 * The card of a trained model, `model.json` in its folder: all that a stranger needs to draw with the weights beside it.
 */
import { z } from "zod";
import { recipeSchema } from "../diffusion/recipe.ts";
import { samplers, type SamplerName } from "../diffusion/samplers/index.ts";
import { FormatError } from "../engine/errors.ts";
import { networkSchema } from "./index.ts";

/** Files of a model folder. */
export const modelFiles = {
  card: "model.json",
  weights: "model.safetensors",
  tokenizer: "tokenizer.json",
} as const;

export const samplingSchema = z.strictObject({
  sampler: z.enum(Object.keys(samplers) as [SamplerName, ...SamplerName[]]).default("euler"),
  steps: z.int().min(1).default(30),
  guidance: z.number().min(0).default(3),
});

export const cardSchema = z.strictObject({
  format: z.literal("patchwise"),
  version: z.literal(1),
  /** What a person calls the model. */
  name: z.string(),
  network: networkSchema,
  diffusion: recipeSchema,
  /** Pictures as the network sees them: values of [0, 255] as [−1, 1]. */
  picture: z.strictObject({
    height: z.int().min(1),
    width: z.int().min(1),
    channels: z.union([z.literal(1), z.literal(3)]),
  }),
  /** Names of the classes, in their order. */
  classes: z.array(z.string()).optional(),
  /** How to sample unless told otherwise. */
  sampling: samplingSchema,
  /** How long it was trained. */
  trained: z.strictObject({ steps: z.int().min(0), images: z.int().min(0) }),
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
