/**
 * Reads a folder of picture files, with captions and labels from metadata files, from a text file beside each
 * picture, or from the names of the subfolders.
 */
import { basename, dirname, extname, join } from "node:path/posix";
import { counted, FormatError, quote, UsageError } from "../../engine/errors.ts";
import { nameFinder } from "../../engine/names.ts";
import { readRegularFile } from "../../weights/sources/read-node.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { captionLines, classesOf } from "./columns.ts";
import type { DataConfigOf } from "../config.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import type { DataSet } from "../dataset.ts";
import { listFiles } from "./files-node.ts";
import { type Metadata, parseMetadata } from "./metadata-node.ts";
import { decodePicture, pictureExtensions } from "../../pictures/decode-node.ts";

type Config = DataConfigOf<"images">;

/** The fields of a folder that say where captions and classes are. */
type FolderConfig = Pick<Config, "path" | "caption" | "label" | "classes" | "undescribed">;

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

/** A kind of example that a folder can hold, such as pictures or clips. */
export interface FolderMedia {
  /** The examples and other files, made of the files of the folder; the files themselves unless given. */
  readonly list?: (files: readonly RelativePath[]) => readonly RelativePath[];
  /** Returns true if an entry of the list is an example; others, such as captions, are not. */
  readonly isItem: (file: RelativePath) => boolean;
  /** The kinds of files that are examples, as messages name them. */
  readonly kinds: string;
  /** Reads an example: [height, width, channels], or frames of them. */
  readonly read: (path: string) => Promise<Uint8Array>;
}

/** @throws UsageError if the folder has no pictures, or its captions and labels contradict each other */
export async function openImageFolder(config: Config, shape: PictureShape): Promise<DataSet> {
  return openMediaFolder(config, {
    isItem: isPicture,
    kinds: "PNG, JPEG, WebP, AVIF or GIF files",
    read: async (path) => decodePicture(await read(path), path, shape, config),
  });
}

/** Opens a folder of examples. @throws UsageError if it has none, or its captions and labels contradict each other */
export async function openMediaFolder(config: FolderConfig, media: FolderMedia): Promise<DataSet> {
  const all = await listFiles(config.path);
  const files = media.list?.(all) ?? all;
  const tables = files.filter((file) => /^metadata\.(?:jsonl|csv)$/i.test(basename(file)));
  const pictures = files.filter(media.isItem);
  if (pictures.length === 0) throw noPictures(config.path, files, media.kinds);
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
  const chosen = withDescription(config, items, {
    caption: captions !== undefined,
    label: folders !== undefined,
  });
  const classes = folders && classesOf(folders.values());
  const indices = new Map(classes?.map((name, i) => [name, i]));
  const indexed = new Set(named);
  const others = files.filter((file) => otherPictures.test(file) && !indexed.has(file));
  const pathOf = (file: RelativePath) => join(config.path, file);
  const described = async (index: number) => {
    const { label, captions: known } = chosen[index]!;
    return {
      label: label === undefined ? undefined : indices.get(label),
      captions: typeof known === "string" ? await readCaptions(pathOf(known)) : known,
    };
  };
  return {
    name: config.path,
    count: chosen.length,
    classes,
    captioned: captions !== undefined,
    nameOf: (index) => pathOf(chosen[index]!.file),
    notes: [
      ...(others.length > 0 ? [othersNote(config.path, others)] : []),
      ...(captions || labels || config.caption === false
        ? []
        : unreadCaptions(config.path, files, pictures)),
    ],
    described,
    example: async (index) => {
      const path = pathOf(chosen[index]!.file);
      const [pixels, rest] = await Promise.all([media.read(path), described(index)]);
      return { pixels, ...rest };
    },
    close: async () => {},
  };
}

function isPicture(file: RelativePath): boolean {
  const extension = extname(file).slice(1).toLowerCase();
  return (pictureExtensions as readonly string[]).includes(extension);
}

/** Endings of pictures that `decodePicture` does not read. */
const otherPictures =
  /\.(?:bmp|cr2|dng|heic|heif|ico|j2k|jfif|jp2|jpe|jxl|nef|psd|raw|svg|tga|tiff?)$/i;

function othersNote(path: string, others: readonly RelativePath[]): string {
  const endings = [...new Set(others.map((file) => extname(file).toLowerCase()))].sort();
  return `${counted(others.length, "picture")} in ${path} ${others.length === 1 ? "is left out, because it ends" : "are left out, because they end"} in ${endings.join(", ")} (the first is ${others[0]}); convert them to PNG, JPEG, WebP, AVIF or GIF.`;
}

/** A note on texts that other programs keep captions in: `.caption`, JSON beside a picture, other tables than those that are read. */
function unreadCaptions(
  path: string,
  files: readonly RelativePath[],
  pictures: readonly RelativePath[],
): readonly string[] {
  const stems = new Set(pictures.map(withoutEnding));
  const unread = files.filter((file) =>
    /\.(?:cap|captions?|json|tags|text)$/i.test(file)
      ? stems.has(withoutEnding(file)) || /^metadata\./i.test(basename(file))
      : /^metadata\.(?:parquet|tsv|txt|xlsx|ya?ml)$/i.test(basename(file)),
  );
  if (unread.length === 0) return [];
  const which =
    unread.length === 1 ? `${unread[0]} is` : `${unread.length} files such as ${unread[0]} are`;
  return [
    `${which} not read, so the pictures in ${path} have no captions; give them as .txt files beside the pictures, or in metadata.jsonl or metadata.csv.`,
  ];
}

function noPictures(path: string, files: readonly RelativePath[], kinds: string): UsageError {
  const others =
    files.length > 0
      ? `, only ${files.length === 1 ? files[0] : `${files.length} other files such as ${files[0]}`}`
      : "";
  return new UsageError(`${path} holds no pictures${others}; give a folder with ${kinds}.`);
}

/** Fails if the subfolders are splits: they are not classes, and training on test pictures is rarely intended. */
function refuseSplits({ path, classes }: FolderConfig, pictures: readonly RelativePath[]): void {
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

/** cat for cat.png, and x.y/cat for x.y/cat. */
function withoutEnding(file: RelativePath): string {
  return file.slice(0, file.length - extname(file).length);
}

/** Finds text files beside pictures: cat.txt beside cat.png. */
function sidecars(
  { caption }: FolderConfig,
  files: readonly RelativePath[],
  pictures: readonly RelativePath[],
): Annotations {
  // Some systems write .TXT.
  const texts = new Map(
    files.filter((file) => /\.txt$/i.test(file)).map((file) => [withoutEnding(file), file]),
  );
  const find = nameFinder(texts.keys());
  const found = pictures.flatMap((file) => {
    const text = find(withoutEnding(file));
    return text === undefined ? [] : [[file, texts.get(text)!] as const];
  });
  const none = found.length === 0 || caption === false;
  return { captions: none ? undefined : new Map(found), labels: undefined };
}

/** Reads all metadata files together. A picture that occurs in several rows has several captions. */
async function readTables(
  config: FolderConfig,
  tables: readonly RelativePath[],
  files: readonly RelativePath[],
): Promise<Partial<Annotations>> {
  const find = nameFinder(files);
  const otherCase = nameFinder(files.map((file) => file.toLowerCase()));
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
      const named = join(dirname(table), row.file);
      const file = find(named) ?? named;
      if (find(named) === undefined) {
        const near = otherCase(named.toLowerCase());
        const hint =
          near === undefined
            ? ""
            : ` (there is ${quote(files.find((each) => each.toLowerCase() === near)!)})`;
        missing.push(`${quote(row.file)} on line ${row.line} of ${path}${hint}`);
      }
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
  { path, classes }: FolderConfig,
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
function withDescription(
  { path, undescribed }: FolderConfig,
  items: readonly Item[],
  expected: { readonly caption: boolean; readonly label: boolean },
): readonly Item[] {
  const isDescribed = ({ captions, label }: Item) =>
    (!expected.caption || captions.length > 0) && (!expected.label || label !== undefined);
  const kept = items.filter(isDescribed);
  if (undescribed === "keep" || kept.length === items.length) return items;
  const what = expected.caption ? "caption" : "label";
  const missing = items.length - kept.length;
  if (undescribed === "refuse") {
    throw new UsageError(
      `${missing} of the ${items.length} pictures in ${path} ${missing === 1 ? "has" : "have"} no ${what} (the first is ${items.find((item) => !isDescribed(item))!.file}); add what is missing, or set \`undescribed\` to skip or keep.`,
    );
  }
  if (kept.length > 0) return kept;
  throw new UsageError(
    `${items.length === 1 ? "The only picture" : `None of the ${items.length} pictures`} in ${path} has ${items.length === 1 ? "no" : "a"} ${what}; add some, or set \`undescribed: keep\`.`,
  );
}

async function read(path: string): Promise<Uint8Array> {
  return readRegularFile(path).catch((cause: unknown) => {
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
