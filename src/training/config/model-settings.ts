/** The `model` of a training config: a family, a preset of it and fields that override the preset. */
import * as z from "zod";
import { defaultFamily, fromFamilies } from "../../models/families.ts";
import type { NetworkCondition, NetworkFamily } from "../../models/family.ts";
import { count } from "../../nn/transformer-schema.ts";

/** The text encoder that is trained with the network, starting from pretrained word vectors. */
const prompt = z.strictObject({
  /** Folder with tokenizer.json and words.safetensors; the bundled one by default. */
  words: z.string().optional(),
  /** True if the word vectors are trained too. */
  trainWords: z.boolean().default(false),
  /** Channels of the tokens that the network reads; its own width by default. */
  width: count.optional(),
  /** The number of transformer blocks of the encoder, from 1; 2 by default. */
  depth: count.default(2),
  /** The number of attention heads of the encoder; they follow from its width by default. */
  heads: count.optional(),
  /** The number of tokens of a prompt; longer prompts are truncated. */
  length: count.default(16),
});

export interface ModelSettings {
  /** The kind of the family, of which docs/train.md has a table; DiT by default. */
  readonly kind: string;
  /** A published size to start from; the fields beside it override it. */
  readonly preset?: string | undefined;
  /** By default "text" for data with captions, "class" for data with classes, else "none". */
  readonly condition?: NetworkCondition["kind"] | undefined;
  /** The text encoder that is trained with the network. */
  readonly prompt: z.output<typeof prompt>;
  /** Fields of the family's config. */
  readonly [field: string]: unknown;
}

/** The data decides these fields, not the config. */
const ofData = ["size", "frames", "channels", "condition", "tokens"];

/** The schema of every family that can be trained; it follows `registerFamily`. */
export const modelSchema = fromFamilies((all): z.ZodType<ModelSettings> => {
  const [first, ...others] = all.filter(({ training }) => training).map(settingsSchema);
  const union = z.discriminatedUnion("kind", [first!, ...others]);
  return union as unknown as z.ZodType<ModelSettings>;
});

function settingsSchema(family: NetworkFamily) {
  const { kind, schema, presets, training } = family;
  const fields = Object.entries(schema.shape).filter(([name]) => !ofData.includes(name));
  const names = Object.keys(presets);
  return z.strictObject({
    kind:
      family === defaultFamily
        ? z
            .literal(kind)
            .optional()
            .transform(() => kind)
        : z.literal(kind),
    ...(names.length > 0 && { preset: z.enum(names as [string, ...string[]]).optional() }),
    condition: z.enum(["none", "class", "text"]).optional(),
    prompt: prompt.prefault({}),
    ...z.object(Object.fromEntries(fields)).partial().shape,
    ...training?.fields,
  });
}
