/**
 * Reads a folder of picture files, with captions and labels from metadata files, from a text file beside each
 * picture, or from the names of the subfolders.
 */
import { readFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path/posix";
import { FormatError, UsageError } from "../../engine/errors.ts";
import { quote } from "../../engine/messages.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { captionLines, classesOf } from "./columns.ts";
import type { DataConfigOf } from "../config.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import type { DataSet } from "../dataset.ts";
import { listFiles } from "./files-node.ts";
import { type Metadata, parseMetadata } from "./metadata-node.ts";
import { decodePicture, pictureExtensions } from "../../pictures/decode-node.ts";

type Config = DataConfigOf<"images">;

/** A path relative to the folder, with "/". */
type RelativePath = string;

/** What is known about a picture before it is opened. */
interface Item {
  readonly file: RelativePath;
  readonly label: string | undefined;
  /** The captions, or the file that holds them. */
  readonly captions: readonly string[] | RelativePath;
}

/** The captions and labels by picture. */
interface Annotations {
  readonly captions: ReadonlyMap<RelativePath, readonly string[] | RelativePath> | undefined;
  readonly labels: ReadonlyMap<RelativePath, string> | undefined;
}

/** Usual names of the folders that hold the splits of a data set. */
const splits = new Set([
  "train",
  "training",
  "test",
  "testing",
  "val",
  "valid",
  "validation",
  "dev",
]);

/** @throws UsageError if the folder has no pictures, or its captions and labels contradict each other */
export async function openImageFolder(config: Config, shape: PictureShape): Promise<DataSet> {
  const files = await listFiles(config.path);
  const tables = files.filter((file) => /^metadata\.(?:jsonl|csv)$/.test(basename(file)));
  const pictures = files.filter(isPicture);
  if (pictures.length === 0) throw noPictures(config.path, files);
  if (!tables.some((file) => dirname(file) === ".")) refuseSplits(config, pictures);

  const { captions, labels } = {
    ...sidecars(config, files, pictures),
    ...(tables.length > 0 && (await readTables(config, tables, files))),
  };
  const folders = labels ?? folderLabels(config, pictures, captions !== undefined);
  // Metadata may name pictures with an unusual extension.
  const named = [...new Set([...pictures, ...(captions?.keys() ?? []), ...(labels?.keys() ?? [])])];
  const items = named.map((file): Item => ({
    file,
    label: folders?.get(file),
    captions: captions?.get(file) ?? [],
  }));
  const chosen = described(config, items, {
    caption: captions !== undefined,
    label: folders !== undefined,
  });
  const classes = folders && classesOf(folders.values());
  const indices = new Map(classes?.map((name, i) => [name, i]));
  const pathOf = (file: RelativePath) => join(config.path, file);
  return {
    name: config.path,
    count: chosen.length,
    classes,
    captioned: captions !== undefined,
    nameOf: (index) => pathOf(chosen[index]!.file),
    example: async (index) => {
      const { file, label, captions: known } = chosen[index]!;
      const [bytes, texts] = await Promise.all([
        read(pathOf(file)),
        typeof known === "string" ? readCaptions(pathOf(known)) : known,
      ]);
      return {
        pixels: await decodePicture(bytes, pathOf(file), shape, config),
        label: label === undefined ? undefined : indices.get(label),
        captions: texts,
      };
    },
    close: async () => {},
  };
}

function isPicture(file: RelativePath): boolean {
  const extension = extname(file).slice(1).toLowerCase();
  return (pictureExtensions as readonly string[]).includes(extension);
}

function noPictures(path: string, files: readonly RelativePath[]): UsageError {
  const others = files.length > 0 ? `, only ${files.length} other files such as ${files[0]}` : "";
  return new UsageError(
    `${path} holds no pictures${others}; give a folder with PNG, JPEG, WebP, AVIF or GIF files.`,
  );
}

/** Fails if the subfolders are splits: they are not classes, and training on test pictures is rarely intended. */
function refuseSplits({ path, classes }: Config, pictures: readonly RelativePath[]): void {
  const folders = [...new Set(pictures.map(topFolder))];
  if (classes !== undefined || !folders.every((name) => splits.has(name.toLowerCase()))) return;
  throw new UsageError(
    `${path} is divided into ${folders.join(" and ")}; set \`path\` to ${join(path, folders.at(-1)!)} or another of them, or \`classes: false\` to take all pictures together.`,
  );
}

/** The first folder of a file's path; "" for a file directly in the data set's folder. */
function topFolder(file: RelativePath): string {
  const end = file.indexOf("/");
  return end === -1 ? "" : file.slice(0, end);
}

/** Finds text files beside pictures: cat.txt beside cat.png. */
function sidecars(
  { caption }: Config,
  files: readonly RelativePath[],
  pictures: readonly RelativePath[],
): Annotations {
  const texts = new Set(files.filter((file) => file.endsWith(".txt")));
  const found = pictures.flatMap((file) => {
    const text = `${file.slice(0, -extname(file).length)}.txt`;
    return texts.has(text) ? [[file, text] as const] : [];
  });
  const none = found.length === 0 || caption === false;
  return { captions: none ? undefined : new Map(found), labels: undefined };
}

/** Reads all metadata files together. A picture that occurs in several rows has several captions. */
async function readTables(
  config: Config,
  tables: readonly RelativePath[],
  files: readonly RelativePath[],
): Promise<Partial<Annotations>> {
  const known = new Set(files);
  const captions = new Map<RelativePath, string[]>();
  const labels = new Map<RelativePath, string>();
  const missing: string[] = [];
  const parsed: Metadata[] = [];
  for (const table of tables) {
    if (tables.some((other) => other !== table && dirname(other) === dirname(table))) {
      throw new UsageError(
        `${join(config.path, dirname(table))} has both a metadata.csv and a metadata.jsonl; keep one of them.`,
      );
    }
    const path = join(config.path, table);
    const metadata = parseMetadata(await readText(path), path, {
      caption: config.caption,
      label: config.label,
    });
    parsed.push(metadata);
    for (const row of metadata.rows) {
      const file = join(dirname(table), row.file);
      if (!known.has(file)) missing.push(`${quote(row.file)} on line ${row.line} of ${path}`);
      captions.set(file, [...(captions.get(file) ?? []), ...row.captions]);
      const before = labels.get(file);
      if (row.label === undefined) continue;
      if (before !== undefined && before !== row.label) {
        throw new UsageError(
          `${path} says on line ${row.line} that ${quote(row.file)} has the class ${quote(row.label)}, but before that the class ${quote(before)}; keep one of them.`,
        );
      }
      labels.set(file, row.label);
    }
  }
  if (missing.length > 0) {
    throw new UsageError(
      `The metadata names ${missing.length === 1 ? "a picture that does" : `${missing.length} pictures that do`} not exist: ${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ", …" : ""}; add ${missing.length === 1 ? "it" : "them"} or remove the rows.`,
    );
  }
  return {
    ...(parsed.some(({ captioned }) => captioned) && { captions }),
    ...(parsed.some(({ labelled }) => labelled) && { labels }),
  };
}

function folderLabels(
  { path, classes }: Config,
  pictures: readonly RelativePath[],
  captioned: boolean,
): ReadonlyMap<RelativePath, string> | undefined {
  if (!(classes ?? !captioned)) return undefined;
  const folders = new Set(pictures.map(topFolder));
  const loose = folders.delete("");
  // A single subfolder is not a class, unless the config says so.
  if (classes === undefined && folders.size < 2) return undefined;
  if (loose || folders.size === 0) {
    throw new UsageError(
      folders.size === 0
        ? `${path} has no subfolders with pictures, which \`classes: true\` asks for; sort the pictures into one folder a class.`
        : `${path} has pictures in its subfolders and outside of them, so the subfolders cannot be the classes; move ${pictures.find((file) => topFolder(file) === "")} and similar ones into them, or set \`classes: false\`.`,
    );
  }
  return new Map(pictures.map((file) => [file, topFolder(file)]));
}

/** Applies `undescribed` to pictures without a caption or label, if other pictures have one. */
function described(
  { path, undescribed }: Config,
  items: readonly Item[],
  expected: { readonly caption: boolean; readonly label: boolean },
): readonly Item[] {
  const isDescribed = ({ captions, label }: Item) =>
    (!expected.caption || captions.length > 0) && (!expected.label || label !== undefined);
  const kept = items.filter(isDescribed);
  if (undescribed === "keep" || kept.length === items.length) return items;
  const what = expected.caption ? "caption" : "label";
  if (undescribed === "refuse") {
    throw new UsageError(
      `${items.length - kept.length} of the ${items.length} pictures in ${path} have no ${what} (the first is ${items.find((item) => !isDescribed(item))!.file}); add what is missing, or set \`undescribed\` to skip or keep.`,
    );
  }
  if (kept.length > 0) return kept;
  throw new UsageError(
    `None of the ${items.length} pictures in ${path} has a ${what}; add some, or set \`undescribed: keep\`.`,
  );
}

async function read(path: string): Promise<Uint8Array> {
  return readFile(path).catch((cause: unknown) => {
    throw new FormatError(`Cannot read ${path}: ${describeSystemError(cause)}.`, { cause });
  });
}

async function readText(path: string): Promise<string> {
  const bytes = await read(path);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${path} is not UTF-8 text; save it as UTF-8.`, { cause });
  }
}

async function readCaptions(path: string): Promise<readonly string[]> {
  return captionLines(await readText(path));
}
