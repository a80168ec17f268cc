/** Pictures to files, with how they were drawn inside, and back. */
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import sharp from "sharp";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { describeSystemError } from "../weights/sources/system-error-node.ts";
import type { Picture } from "./picture.ts";
import { parametersText, type PictureMetadata, pictureMetadataSchema } from "./metadata.ts";
import { isPng, pngTexts, withPngTexts } from "./png-node.ts";

export type PictureFormat = "png" | "webp" | "gif";

export interface PictureOptions {
  readonly format: PictureFormat;
  /** How it was drawn; a GIF has no place for it. */
  readonly metadata?: PictureMetadata | undefined;
}

const formats: Readonly<Record<string, PictureFormat>> = {
  ".png": "png",
  ".webp": "webp",
  ".gif": "gif",
};

/** The PNG chunk, and the XMP element, that hold the metadata as a JSON object. */
const OURS = "patchwise";
/** What an XMP namespace is called says nothing of where it is. */
const NAMESPACE = "urn:patchwise:picture:";

/**
 * The format that a file's name asks for.
 *
 * @throws UsageError when it asks for none that can be written
 */
export function pictureFormat(path: string): PictureFormat {
  const format = formats[extname(path).toLowerCase()];
  if (format) return format;
  throw new UsageError(
    `Cannot write a picture to ${path}: give a name that ends in ${Object.keys(formats).join(", ")}.`,
  );
}

/**
 * A picture as the bytes of a file; PNG and WebP keep every pixel as it is, a GIF at most 256 colours.
 *
 * @throws UsageError when the format takes no picture as large
 */
export async function encodePicture(
  picture: Picture,
  { format, metadata }: PictureOptions,
): Promise<Uint8Array> {
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
  { width, height, channels, pixels }: Picture,
  format: PictureFormat,
  metadata: PictureMetadata | undefined,
): Promise<Uint8Array> {
  const image = sharp(pixels, { raw: { width, height, channels } });
  switch (format) {
    case "png": {
      const png = await image
        .toColourspace(channels === 1 ? "b-w" : "srgb")
        .png()
        .toBuffer();
      return metadata ? withPngTexts(png, textsOf(metadata)) : png;
    }
    case "webp": {
      const described = metadata ? image.withXmp(xmpOf(metadata)) : image;
      return described.webp({ lossless: true }).toBuffer();
    }
    case "gif":
      return image.gif().toBuffer();
  }
}

/**
 * Writes a picture in the format that the file's name asks for, whole or not at all.
 *
 * @returns the bytes of the file
 * @throws UsageError when the name asks for no format, PatchwiseError when the disk refuses
 */
export async function writePicture(
  path: string,
  picture: Picture,
  metadata?: PictureMetadata,
): Promise<Uint8Array> {
  const bytes = await encodePicture(picture, { format: pictureFormat(path), metadata });
  await writeFileAtomic(path, bytes);
  return bytes;
}

/**
 * How the picture in a PNG or WebP file was drawn.
 *
 * @throws UsageError when the file does not say, FormatError when it is damaged, PatchwiseError when it cannot be read
 */
export async function readPictureMetadata(path: string): Promise<PictureMetadata> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw new PatchwiseError(`Cannot read ${path}: ${describeSystemError(error)}.`, {
      cause: error,
    });
  });
  const text = isPng(bytes) ? pngTexts(bytes, path).get(OURS) : await webpText(bytes, path);
  if (text === undefined) {
    throw new UsageError(
      `${path} does not say how it was drawn; give a PNG or WebP file as patchwise generate writes it.`,
    );
  }
  return parse(text, path);
}

function parse(text: string, path: string): PictureMetadata {
  const result = pictureMetadataSchema.safeParse(jsonOf(text));
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new FormatError(
    `What ${path} says of how it was drawn is damaged (${issue.path.join(".") || "the whole"}: ${issue.message}); give another file.`,
  );
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function textsOf(metadata: PictureMetadata): Record<string, string> {
  return { parameters: parametersText(metadata), [OURS]: JSON.stringify(metadata) };
}

function xmpOf(metadata: PictureMetadata): string {
  return (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>' +
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
    `<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:${OURS}="${NAMESPACE}">` +
    `<dc:description><rdf:Alt><rdf:li xml:lang="x-default">${escaped(parametersText(metadata))}</rdf:li></rdf:Alt></dc:description>` +
    `<${OURS}:${OURS}>${escaped(JSON.stringify(metadata))}</${OURS}:${OURS}>` +
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
  );
}

async function webpText(bytes: Uint8Array, path: string): Promise<string | undefined> {
  const xmp = await sharp(bytes)
    .metadata()
    .then(
      (found) => found.xmp,
      (cause: unknown) => {
        throw new FormatError(`${path} is not a sound picture file; give another.`, { cause });
      },
    );
  const element = new RegExp(`<${OURS}:${OURS}>([^<]*)</${OURS}:${OURS}>`);
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
