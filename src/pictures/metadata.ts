/** The metadata of a drawn picture: enough to draw it again. */
import * as z from "zod";

/** Pictures from before width and height had fields of their own. */
function renamed(content: unknown): unknown {
  if (typeof content !== "object" || content === null) return content;
  const { size, negative, ...rest } = content as Record<string, unknown>;
  const [height, width] = Array.isArray(size) ? (size as unknown[]) : [];
  return {
    ...rest,
    ...(negative !== undefined && { negativePrompt: negative }),
    ...(size !== undefined && { width, height }),
  };
}

/** The fields that other programs show too. */
const shownFields = z.object({
  /** The prompt, of models that take one. */
  prompt: z.string().optional(),
  /** The name of the class, of models that draw classes. */
  class: z.string().optional(),
  /** The prompt or class that guidance led away from. */
  negativePrompt: z.string().optional(),
  /** Seed of the noise, a whole number from 0. */
  seed: z.int().min(0),
  /** The number of steps, a whole number from 1. */
  steps: z.int().min(1),
  /** Scale of classifier-free guidance; 1 means none. */
  guidance: z.number(),
  /** The sampling method. */
  sampler: z.string(),
  /** Only for pictures that were drawn from an image. */
  strength: z.number().optional(),
  /** The LoRAs that were merged into the model: files or folders, and the weight of each. */
  loras: z
    .array(
      z.object({
        /** The file or folder. */
        file: z.string(),
        /** The factor with which it was merged. */
        weight: z.number(),
      }),
    )
    .readonly()
    .optional(),
  /** Width in pixels. */
  width: z.int().min(1),
  /** Height in pixels. */
  height: z.int().min(1),
  /** Name of the model. */
  model: z.string(),
  /** Version of Patchwise. */
  version: z.string(),
});

/** All other settings of the drawing stay as they are, and are checked when a picture is drawn with them again. */
export const pictureMetadataSchema = z.preprocess(renamed, shownFields.loose());

export type PictureMetadata = z.output<typeof shownFields>;

/**
 * The metadata as a text that many programs for generated pictures show: AUTOMATIC1111's "parameters", the prompt on the
 * first line and the settings on the last.
 */
export function parametersText(metadata: PictureMetadata): string {
  const { prompt, negativePrompt, seed, steps, guidance, sampler, width, height } = metadata;
  const { strength, loras, model, version } = metadata;
  const settings = {
    Steps: steps,
    Sampler: sampler,
    "CFG scale": guidance,
    Seed: seed,
    Size: `${width}x${height}`,
    ...(strength !== undefined && { "Denoising strength": strength }),
    Model: model,
    ...(loras && { Loras: loras.map(({ file, weight }) => `${file}:${weight}`).join(" ") }),
    Version: `patchwise ${version}`,
  };
  return [
    printable(prompt ?? metadata.class ?? ""),
    ...(negativePrompt === undefined ? [] : [`Negative prompt: ${printable(negativePrompt)}`]),
    Object.entries(settings)
      .map(([name, value]) => `${name}: ${quoted(String(value))}`)
      .join(", "),
  ].join("\n");
}

/** Replaces control characters, which neither PNG texts nor XML may hold. */
function printable(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, " ");
}

/** Quotes a value that would read as several, as those programs do. */
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}
