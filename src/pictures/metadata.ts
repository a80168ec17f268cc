/** What a drawn picture says of how it was drawn: enough to draw it again. */
import { z } from "zod";

export const pictureMetadataSchema = z.object({
  prompt: z.string().optional(),
  class: z.string().optional(),
  negative: z.string().optional(),
  seed: z.int().min(0),
  steps: z.int().min(1),
  guidance: z.number(),
  /** Channels that guidance counted for; all unless given. */
  guidedChannels: z.int().min(1).optional(),
  sampler: z.string(),
  /** Of tokens, in the first and in the last step. */
  temperature: z.tuple([z.number(), z.number()]).readonly().optional(),
  /** Of the times of a rectified flow, where it was not the model's own. */
  shift: z.number().optional(),
  guidanceInterval: z.tuple([z.number(), z.number()]).readonly().optional(),
  rescale: z.number().optional(),
  skipLayers: z
    .object({
      layers: z.array(z.int().min(0)).readonly(),
      scale: z.number(),
      from: z.number(),
      to: z.number(),
    })
    .optional(),
  /** Of a picture that was drawn on from another one. */
  strength: z.number().optional(),
  /** Whether a mask told what was drawn anew. */
  masked: z.boolean().optional(),
  /** Mixed into the model: files or folders, and how much of each. */
  loras: z
    .array(z.object({ file: z.string(), weight: z.number() }))
    .readonly()
    .optional(),
  /** [height, width] in pixels. */
  size: z.tuple([z.int().min(1), z.int().min(1)]).readonly(),
  /** Name of the model. */
  model: z.string(),
  /** Of Patchwise. */
  version: z.string(),
});

export type PictureMetadata = z.output<typeof pictureMetadataSchema>;

/**
 * The same as a text that many programs for generated pictures show: AUTOMATIC1111's "parameters", the prompt on the
 * first line and the settings on the last.
 */
export function parametersText(metadata: PictureMetadata): string {
  const { prompt, negative, seed, steps, guidance, sampler, size, model, version } = metadata;
  const { strength, loras } = metadata;
  const [height, width] = size;
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
    ...(negative === undefined ? [] : [`Negative prompt: ${printable(negative)}`]),
    Object.entries(settings)
      .map(([name, value]) => `${name}: ${quoted(String(value))}`)
      .join(", "),
  ].join("\n");
}

/** Neither PNG's texts nor XML may hold control characters. */
function printable(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, " ");
}

/** As those programs do with a value that would look like several. */
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}
