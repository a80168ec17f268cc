/**
 * From the settings of a request, whichever interface it came by, to a job: every setting is checked by its row and for the model,
 * so that what cannot be drawn is refused before it is accepted.
 */
import { randomInt } from "node:crypto";
import * as z from "zod";
import { FormatError } from "../engine/errors.ts";
import { fitPicture, readAnimationBytes, readPicture } from "../pictures/decode-node.ts";
import { readMask } from "../pictures/mask-node.ts";
import { type Picture, withChannels } from "../pictures/picture.ts";
import { apngFrameCount } from "../pictures/apng-node.ts";
import { isAnimatedPng, isPng, toPng } from "../pictures/png.ts";
import { pictureHeader } from "../pictures/sharp-node.ts";
import { MOST_REFERENCES } from "../pipelines/given-settings.ts";
import { type ImageModel, pictureSize } from "../pipelines/image-model.ts";
import { checkedRequest, type GenerateRequest, resolveRequest } from "../pipelines/settings.ts";
import type { Catalogue } from "./catalogue.ts";
import { type GivenName, givenNames, referenceFile } from "./job-store.ts";
import type { Draft } from "./jobs.ts";
import { checkLimits } from "./limits.ts";
import { Problem } from "./problem.ts";
import { type Limits, type LoraChoice, outputFormats } from "./wire.ts";

/** What a request says beside the settings of `pipelines/settings.ts`. */
export const besideSettings = z.object({
  model: z.string().optional(),
  loras: z
    .array(z.strictObject({ name: z.string(), weight: z.number().min(-10).max(10).optional() }))
    .max(8)
    .optional(),
  previews: z.int().min(0).max(1000).optional(),
  outputFormat: z.enum(outputFormats).optional(),
});

/** Picture files and animated files to start from, and reference pictures, as the request gave them. */
export type GivenFiles = { readonly [N in GivenName]?: Uint8Array | undefined } & {
  readonly references?: readonly Uint8Array[] | undefined;
};

export interface RequestOptions {
  /** The fields of the request: those above, and settings by any of their names, but for those that are files. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly files: GivenFiles;
  /** True if the image is resized and cropped to the size that is asked for, and else refused if it differs. */
  readonly fits: boolean;
  readonly attached: boolean;
}

/**
 * Checks a request.
 *
 * @throws Problem, UsageError or FormatError that says what is wrong
 */
export async function draftOf(
  { fields, files, fits, attached }: RequestOptions,
  catalogue: Catalogue,
  limits: Limits,
): Promise<Draft> {
  const { model: name, loras = [], previews = 0, outputFormat = "png" } = checkedBeside(fields);
  const { model, name: listed } = catalogue.model(name);
  await catalogue.loras(loras);
  const settings = Object.fromEntries(
    Object.entries(fields).filter(([field]) => !Object.hasOwn(besideSettings.shape, field)),
  );
  const asked = checkedRequest(settings);
  checkLimits(asked, limits);
  const given = await givenPictures(files, limits);
  const fitted = fits && given.image ? await fittedTo(given, asked, model) : given;
  const seed = asked.seed ?? randomInt(2 ** 32);
  const resolved = resolveRequest({ ...asked, seed, ...fitted }, model).settings;
  checkLimits(resolved, limits);
  if (resolved.frames !== undefined && outputFormat === "jpeg") {
    throw new Problem(400, `${listed} draws clips, which JPEG cannot hold; ask for webp or png.`, {
      param: "outputFormat",
    });
  }
  const kept = await keptFiles(files, fitted === given ? undefined : fitted);
  return {
    kind: "draw",
    model: listed,
    loras,
    settings: loras.length === 0 ? resolved : { ...resolved, loras: loras.map(recorded) },
    outputFormat,
    previews,
    attached,
    given: givenNames.filter((each) => Object.hasOwn(kept, each)),
    files: kept,
  };
}

/** The files that a job keeps: as they were given, or of the pictures that were fitted. */
async function keptFiles(
  files: GivenFiles,
  fitted: GivenPictures | undefined,
): Promise<Readonly<Record<string, Uint8Array>>> {
  const kept: Record<string, Uint8Array> = {};
  for (const name of givenNames) {
    const bytes = files[name];
    if (bytes === undefined) continue;
    const picture = name === "image" || name === "mask" ? fitted?.[name] : undefined;
    kept[name] = picture ? await toPng(picture) : bytes;
  }
  for (const [i, bytes] of (files.references ?? []).entries()) kept[referenceFile(i)] = bytes;
  return kept;
}

/** The fields that are no settings. @throws Problem that names the one at fault */
function checkedBeside(fields: object): z.output<typeof besideSettings> {
  const result = besideSettings.safeParse(fields);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  const param = path.join(".");
  throw new Problem(400, `${param} is not as expected: ${message}.`, { param });
}

/** A LoRA as metadata name it: by its name here, not by a path of this machine. */
const recorded = ({ name, weight = 1 }: LoraChoice) => ({ file: name, weight });

type GivenPictures = Partial<Pick<GenerateRequest, GivenName | "references">>;

/** Decodes what a request gave. */
async function givenPictures(files: GivenFiles, limits: Limits): Promise<GivenPictures> {
  const pictures: Record<string, unknown> = {};
  for (const name of givenNames) {
    const bytes = files[name];
    if (bytes === undefined) continue;
    await checkPixels(bytes, name, limits);
    pictures[name] = await decoders[name](bytes);
  }
  if (files.references) {
    const references: Picture[] = [];
    for (const [i, bytes] of files.references.entries()) {
      const param = `references.${i}`;
      await checkPixels(bytes, param, limits);
      references.push(await readPicture(bytes, { name: param }));
    }
    pictures["references"] = references;
  }
  return pictures;
}

const decoders: { readonly [N in GivenName]: (bytes: Uint8Array) => Promise<GivenPictures[N]> } = {
  image: (bytes) => readPicture(bytes, { name: "image" }),
  mask: (bytes) => readMask(bytes, "mask"),
  lastImage: (bytes) => readPicture(bytes, { name: "lastImage" }),
  extend: async (bytes) => (await readAnimationBytes(bytes, "extend", "white")).clip,
};

/** Formats of pictures as sharp names them, of which AVIF is one of HEIF. Others, such as SVG, are programs in a way, and are not run for requests. */
const readFormats: ReadonlySet<string | undefined> = new Set([
  "png",
  "jpeg",
  "webp",
  "heif",
  "gif",
]);

/** @throws Problem if a picture file says that it has too many pixels, before any is decoded */
export async function checkPixels(
  bytes: Uint8Array,
  param: string,
  limits: Pick<Limits, "pixels">,
): Promise<void> {
  const refuse = (cause?: unknown): never => {
    throw new FormatError(
      `${param} cannot be read as a picture; give a PNG, JPEG, WebP, AVIF or GIF file.`,
      { cause },
    );
  };
  const { width, height, format, pages = 1 } = await pictureHeader(bytes).catch(refuse);
  if (!readFormats.has(format)) refuse();
  const isClip = param === "extend";
  const frames = isPng(bytes) && isAnimatedPng(bytes) ? apngFrameCount(bytes, param) : pages;
  if (width * height * (isClip ? frames : 1) <= limits.pixels) return;
  throw new Problem(
    400,
    `${param} has ${width}×${height} pixels${isClip ? ` in each of ${frames} frames` : ""}, but this server takes at most ${limits.pixels}; make it smaller.`,
    { param, code: "limit_exceeded" },
  );
}

/** The pictures in the size that is asked for, or the image's own if the model draws it, or else the model's. */
async function fittedTo(
  { image, mask, ...others }: GivenPictures,
  asked: { readonly width?: number | undefined; readonly height?: number | undefined },
  model: ImageModel,
): Promise<GivenPictures> {
  const size = sizeFor(image!, asked, model);
  const fit = async (picture: Picture): Promise<Picture> => {
    const { channels } = picture;
    const shape = { ...size, channels };
    const isSo = picture.width === size.width && picture.height === size.height;
    if (isSo) return picture;
    const whole = withChannels(picture, 3);
    const pixels = await fitPicture(whole, shape, { fit: "cover", background: "white" });
    return { ...shape, pixels };
  };
  return { ...others, image: await fit(image!), ...(mask && { mask: await fit(mask) }) };
}

function sizeFor(
  { width, height }: Picture,
  asked: { readonly width?: number | undefined; readonly height?: number | undefined },
  model: ImageModel,
): { width: number; height: number } {
  if (asked.width !== undefined || asked.height !== undefined) return pictureSize(asked, model);
  try {
    return pictureSize({ width, height }, model);
  } catch {
    return pictureSize({}, model);
  }
}

/**
 * The bytes of a picture in a JSON body.
 *
 * @param text base64, or a data URL
 * @throws Problem unless it is one of them
 */
export function pictureBytes(text: unknown, param: string): Uint8Array | undefined {
  if (text === undefined || text === null) return undefined;
  const base64 = typeof text === "string" ? text.replace(/^data:[^,;]*;base64,/, "") : "";
  const bytes = Buffer.from(base64, "base64");
  // Buffer skips what is no base64.
  if (bytes.length > 0 && Math.ceil(base64.replace(/=+$/, "").length * 0.75) - bytes.length < 3) {
    return bytes;
  }
  throw new Problem(400, `${param} must be a picture file in base64.`, { param });
}

/**
 * The bytes of reference pictures in a JSON body.
 *
 * @throws Problem unless it is a list of few enough
 */
export function referenceBytes(given: unknown): readonly Uint8Array[] | undefined {
  if (given === undefined) return undefined;
  if (Array.isArray(given) && given.length > 0) {
    requireFewReferences(given.length);
    return given.map((text, i) => {
      const param = `references.${i}`;
      return pictureBytes(text ?? "", param)!;
    });
  }
  throw new Problem(400, "references must be a list of picture files in base64.", {
    param: "references",
  });
}

/** @throws Problem if there are more reference pictures than a drawing takes, before any is decoded */
export function requireFewReferences(count: number): void {
  if (count <= MOST_REFERENCES) return;
  throw new Problem(
    400,
    `There are ${count} reference pictures, but a drawing takes at most ${MOST_REFERENCES}; give fewer.`,
    { param: "references", code: "limit_exceeded" },
  );
}
