/** The metadata of a drawn picture: how it was drawn, in enough detail to draw it again. */
import { z } from "zod";

export const pictureMetadataSchema = z.object({
  prompt: z.string().optional(),
  class: z.string().optional(),
  negative: z.string().optional(),
  seed: z.int().min(0),
  steps: z.int().min(1),
  guidance: z.number(),
  /** The first channels to which guidance was applied; absent for all. */
  guidedChannels: z.int().min(1).optional(),
  sampler: z.string(),
  /** Temperature of the codes in the first and in the last step. */
  temperature: z.tuple([z.number(), z.number()]).readonly().optional(),
  /** Time shift of a rectified flow, if it was not the default of the model. */
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
  /** Share of the noise that was added to an input picture. */
  strength: z.number().optional(),
  /** Whether a mask limited what was redrawn. */
  masked: z.boolean().optional(),
  /** Files or folders of LoRAs that were merged into the model, with their weights. */
  loras: z
    .array(z.object({ file: z.string(), weight: z.number() }))
    .readonly()
    .optional(),
  /** [height, width] in pixels. */
  size: z.tuple([z.int().min(1), z.int().min(1)]).readonly(),
  /** Name of the model. */
  model: z.string(),
  /** Version of Patchwise. */
  version: z.string(),
});

export type PictureMetadata = z.output<typeof pictureMetadataSchema>;

/**
 * Formats metadata as the text that many programs for generated pictures show: AUTOMATIC1111's "parameters", with the
 * prompt on the first line and the settings on the last.
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

/** Replaces control characters, which neither PNG texts nor XML may hold. */
function printable(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, " ");
}

/** Quotes a value that would read as several, as those programs do. */
function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}
