/** Writes pictures to files together with how they were drawn, and reads that back. */
import { tryJson } from "../engine/bytes.ts";
import { extname } from "node:path";
import type { Sharp } from "sharp";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { readRegularFile } from "../weights/sources/read-node.ts";
import { describeSystemError } from "../weights/sources/system-error-node.ts";
import { type Picture, requirePicture } from "./picture.ts";
import { kinds, requireKind } from "../engine/options.ts";
import { type BlobType, requireBlobType } from "./convert.ts";
import { parametersText, type PictureMetadata, pictureMetadataSchema } from "./metadata.ts";
import { isPng, METADATA_KEYWORD, toPng } from "./png.ts";
import { pngTexts } from "./png-node.ts";
import { loadSharp, pictureHeader } from "./sharp-node.ts";

export type PictureFormat = "png" | "jpeg" | "webp" | "gif";

export interface PictureOptions {
  /** The format of the file, whatever its name. */
  readonly format: PictureFormat;
  /** How the picture was drawn; a GIF file does not hold it. */
  readonly metadata?: PictureMetadata | undefined;
}

const formats: Readonly<Record<string, PictureFormat>> = {
  ".png": "png",
  ".jpg": "jpeg",
  ".jpeg": "jpeg",
  ".webp": "webp",
  ".gif": "gif",
};

/** A name alone: nothing is at this address. */
const NAMESPACE = "urn:patchwise:picture:";

/**
 * Returns the format of a file by its extension: .png, .jpg, .jpeg, .webp or .gif.
 *
 * @throws UsageError if the extension is another one
 */
export function pictureFormat(path: string): PictureFormat {
  const format = formats[extname(path).toLowerCase()];
  if (format) return format;
  throw new UsageError(
    `Cannot write a picture to ${path}: give a name that ends in ${Object.keys(formats).join(", ")}.`,
  );
}

/**
 * Encodes a picture as the bytes of a file. PNG and WebP are lossless, JPEG has quality 95, and GIF has at most 256
 * colours.
 *
 * @throws UsageError if the picture is too large for the format
 */
export async function encodePicture(
  picture: Picture,
  { format, metadata }: PictureOptions,
): Promise<Uint8Array> {
  requirePicture("encodePicture", picture);
  const { width, height } = picture;
  try {
    return await encoded(picture, format, metadata);
  } catch (cause) {
    const [reason] = (cause as Error).message.split("\n");
    throw new UsageError(
      `A picture of ${width}×${height} pixels cannot be written as ${format.toUpperCase()}: ${reason}; choose another format or size.`,
      { cause },
    );
  }
}

async function encoded(
  picture: Picture,
  format: PictureFormat,
  metadata: PictureMetadata | undefined,
): Promise<Uint8Array> {
  if (format === "png") return toPng(picture, metadata);
  const { width, height, channels, pixels } = picture;
  const image = (await loadSharp())(pixels, { raw: { width, height, channels } });
  switch (format) {
    case "jpeg":
      return described(image, metadata)
        .jpeg({ quality: 95, chromaSubsampling: "4:4:4" })
        .toBuffer();
    case "webp":
      return described(image, metadata).webp({ lossless: true }).toBuffer();
    case "gif":
      return image.gif().toBuffer();
  }
}

/** Adds how a picture was drawn, as XMP. */
export function described(image: Sharp, metadata: PictureMetadata | undefined): Sharp {
  return metadata ? image.withXmp(xmpOf(metadata)) : image;
}

/** Encodes a picture as a Blob; PNG and WebP are lossless. */
export async function toBlob(picture: Picture, type: BlobType = "image/png"): Promise<Blob> {
  requireBlobType(type);
  const format = type.slice("image/".length) as PictureFormat;
  return new Blob([new Uint8Array(await encodePicture(picture, { format }))], { type });
}

/**
 * Writes a picture in the format of the file's extension. A failure leaves no half-written file.
 *
 * @returns the bytes of the file
 * @throws UsageError if the extension is unknown; PatchwiseError if the file cannot be written
 */
export async function writePicture(
  path: string,
  picture: Picture,
  metadata?: PictureMetadata,
): Promise<Uint8Array> {
  requireKind("writePicture: the name of the file", path, kinds.text);
  const bytes = await encodePicture(picture, { format: pictureFormat(path), metadata });
  await writeFileAtomic(path, bytes);
  return bytes;
}

/**
 * Reads from a PNG, JPEG or WebP file how the picture in it was drawn.
 *
 * @throws UsageError if the file does not say, FormatError if it is damaged, PatchwiseError if it cannot be read
 */
export async function readPictureMetadata(path: string): Promise<PictureMetadata> {
  const bytes = await readRegularFile(path).catch((error: unknown) => {
    throw new PatchwiseError(`Cannot read ${path}: ${describeSystemError(error)}.`, {
      cause: error,
    });
  });
  const text = isPng(bytes)
    ? pngTexts(bytes, path).get(METADATA_KEYWORD)
    : await xmpText(bytes, path);
  if (text === undefined) {
    throw new UsageError(
      `${path} does not say how it was drawn; give a PNG, JPEG or WebP file that patchwise generate wrote.`,
    );
  }
  return parse(text, path);
}

function parse(text: string, path: string): PictureMetadata {
  const result = pictureMetadataSchema.safeParse(tryJson(text));
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new FormatError(
    `The description of how ${path} was drawn is damaged (${issue.path.join(".") || "the whole"}: ${issue.message}); give another file.`,
  );
}

function xmpOf(metadata: PictureMetadata): string {
  return (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>' +
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
    `<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:${METADATA_KEYWORD}="${NAMESPACE}">` +
    `<dc:description><rdf:Alt><rdf:li xml:lang="x-default">${escaped(parametersText(metadata))}</rdf:li></rdf:Alt></dc:description>` +
    `<${METADATA_KEYWORD}:${METADATA_KEYWORD}>${escaped(JSON.stringify(metadata))}</${METADATA_KEYWORD}:${METADATA_KEYWORD}>` +
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
  );
}

async function xmpText(bytes: Uint8Array, path: string): Promise<string | undefined> {
  const { xmp } = await pictureHeader(bytes).catch((cause: unknown) => {
    throw new FormatError(`${path} is not a valid picture file; give another.`, { cause });
  });
  const element = new RegExp(
    `<${METADATA_KEYWORD}:${METADATA_KEYWORD}>([^<]*)</${METADATA_KEYWORD}:${METADATA_KEYWORD}>`,
  );
  const text = element.exec(xmp?.toString("utf8") ?? "")?.[1];
  return text === undefined ? undefined : unescaped(text);
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };

function escaped(text: string): string {
  return text.replace(/[&<>]/g, (character) => entities[character]!);
}

function unescaped(text: string): string {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}
