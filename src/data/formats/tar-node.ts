/** Reads WebDataset archives: samples in tar files, each a picture and its annotations under one name. */
import { FormatError, quote, UsageError } from "../../engine/errors.ts";
import { parsePythonJson } from "../../weights/python-json.ts";
import type { ByteSource } from "../../weights/sources/source.ts";
import { captionLines, captionNames, captionsOf, chooseColumn } from "./columns.ts";
import type { DataConfigOf } from "../config.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import type { DataSet } from "../dataset.ts";
import { decodePicture, pictureExtensions } from "../../pictures/decode-node.ts";
import { openShards } from "./files-node.ts";
import { type TarEntry, tarEntries } from "./tar.ts";

type Config = DataConfigOf<"tar">;

interface Sample {
  readonly archive: ByteSource;
  readonly key: string;
  /** By extension: everything after the first dot of the file's name. */
  readonly parts: ReadonlyMap<string, TarEntry>;
}

// A .cls file holds one number, and .txt and .json files hold what people wrote, so larger ones are not read.
const MAX_TEXT = 2 ** 24;

/** @throws UsageError if there are no samples with pictures; FormatError if an archive is damaged */
export function openTar(config: Config, shape: PictureShape): Promise<DataSet> {
  return openShards(
    config,
    ".tar",
    async (archive) => samplesOf(archive, await tarEntries(archive)),
    (samples) => describe(config, shape, samples),
  );
}

/** Groups files whose paths are equal up to the first dot of their names. */
function samplesOf(archive: ByteSource, entries: readonly TarEntry[]): Sample[] {
  const samples = new Map<string, Map<string, TarEntry>>();
  for (const entry of entries) {
    const begin = entry.name.lastIndexOf("/") + 1;
    const dot = entry.name.indexOf(".", begin);
    // The file has no extension, or is hidden like the "._" companions of macOS.
    if (dot === -1 || dot === begin) continue;
    // A picture and its caption may come from systems that spell é in different ways.
    const key = entry.name.slice(0, dot).normalize("NFC");
    const extension = entry.name.slice(dot + 1).toLowerCase();
    const parts = samples.get(key) ?? new Map<string, TarEntry>();
    if (parts.has(extension)) {
      throw new FormatError(
        `${archive.name} has the file ${quote(entry.name)} twice, so its sample is ambiguous; rename one of them.`,
      );
    }
    samples.set(key, parts.set(extension, entry));
  }
  return [...samples].map(([key, parts]) => ({ archive, key, parts }));
}

async function describe(
  config: Config,
  shape: PictureShape,
  samples: readonly Sample[],
): Promise<Omit<DataSet, "close">> {
  const picture = pictureExtension(config, samples);
  const field = await captionField(config, samples);
  const texts = config.caption !== false && samples.some(({ parts }) => parts.has("txt"));
  const labels = config.label ? await readLabels(samples) : undefined;
  const highest = labels?.reduce<number>((a, b) => Math.max(a, b ?? 0), 0) ?? 0;
  const classes =
    labels && (config.classes ?? Array.from({ length: highest + 1 }, (_, i) => `${i}`));
  if (classes && highest >= classes.length) {
    throw new UsageError(
      `${config.path} has the label ${highest}, but \`classes\` has names for ${classes.length} classes only; give a name for each.`,
    );
  }
  const nameOf = (index: number) => {
    const { archive, key } = samples[index]!;
    return `${quote(key)} in ${archive.name}`;
  };
  const described = async (index: number) => ({
    label: labels?.[index],
    captions: await captions(samples[index]!, nameOf(index), texts, field),
  });
  return {
    name: config.path,
    count: samples.length,
    classes,
    captioned: texts || field !== undefined,
    nameOf,
    notes:
      texts || field !== undefined || labels || config.caption === false
        ? []
        : unread(config.path, samples),
    described,
    example: async (index) => {
      const { archive, parts } = samples[index]!;
      const entry = picture(parts);
      if (!entry) throw new FormatError(`${nameOf(index)} has no picture.`);
      const bytes = await archive.read(entry.offset, entry.size);
      const pixels = await decodePicture(bytes, nameOf(index), shape, config);
      return { pixels, ...(await described(index)) };
    },
  };
}

/** A note on files beside pictures that are not read, of samples without captions or labels. */
function unread(path: string, samples: readonly Sample[]): readonly string[] {
  const endings = [...new Set(samples.flatMap(({ parts }) => [...parts.keys()]))].filter((each) =>
    /^(?:cap|captions?|class|json|label|tags|text)$/.test(each),
  );
  if (endings.length === 0) return [];
  return [
    `The .${endings.join(" and .")} files in ${path} are not read, so its pictures have no captions; name the field of .json files with data.caption, or give .txt files.`,
  ];
}

/** Returns a function that finds the picture among the files of a sample. */
function pictureExtension(
  { path, image }: Config,
  samples: readonly Sample[],
): (parts: Sample["parts"]) => TarEntry | undefined {
  const wanted: readonly string[] = image === undefined ? pictureExtensions : [image.toLowerCase()];
  const endings = ({ parts }: Sample) => wanted.filter((extension) => parts.has(extension));
  const several = samples.find((sample) => endings(sample).length > 1);
  if (several) {
    throw new UsageError(
      `${quote(several.key)} in ${several.archive.name} has several pictures (${endings(several).join(", ")}), such as a photo and its mask; say with \`image\` which ending to use.`,
    );
  }
  const find = (parts: Sample["parts"]) => {
    const found = wanted.find((extension) => parts.has(extension));
    return found === undefined ? undefined : parts.get(found);
  };
  if (samples.some(({ parts }) => find(parts))) return find;
  const others = [...new Set(samples.flatMap(({ parts }) => [...parts.keys()]))];
  throw new UsageError(
    `${path} holds no pictures that end in ${wanted.map((each) => `.${each}`).join(", ")}${others.length > 0 ? `, only ${others.slice(0, 8).map(quote).join(", ")}` : ""}; set \`image\` to their extension.`,
  );
}

/** Returns the field of the .json files that holds captions, judged by the first file. */
async function captionField(
  { path, caption }: Config,
  samples: readonly Sample[],
): Promise<string | undefined> {
  if (caption === false) return undefined;
  const first = samples.find(({ parts }) => parts.has("json"));
  if (!first) {
    if (caption === undefined) return undefined;
    throw new UsageError(`${path} has no .json files with the field ${quote(caption)}.`);
  }
  // Captions in .txt files have priority over .json fields that the config does not name.
  if (caption === undefined && samples.some(({ parts }) => parts.has("txt"))) return undefined;
  const where = `${quote(`${first.key}.json`)} in ${first.archive.name}`;
  const fields = Object.keys(await readJson(first, where));
  return chooseColumn("caption", caption, captionNames, fields, where);
}

async function captions(
  sample: Sample,
  name: string,
  texts: boolean,
  field: string | undefined,
): Promise<readonly string[]> {
  if (field !== undefined) {
    const value = sample.parts.has("json") ? (await readJson(sample, name))[field] : undefined;
    const found = captionsOf(value);
    if (found) return found;
    throw new FormatError(`${name}: ${quote(field)} is neither a string nor a list of strings.`);
  }
  if (!texts) return [];
  const text = await readText(sample, "txt", name);
  return text === undefined ? [] : captionLines(text);
}

async function readJson(sample: Sample, name: string): Promise<Record<string, unknown>> {
  const text = await readText(sample, "json", name);
  try {
    const value: unknown = parsePythonJson(text ?? "", null);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch (cause) {
    throw new FormatError(`${name}: its .json is damaged: ${(cause as Error).message}.`, { cause });
  }
  throw new FormatError(`${name}: its .json is not an object.`);
}

async function readText(
  { archive, parts }: Sample,
  extension: string,
  name: string,
): Promise<string | undefined> {
  const entry = parts.get(extension);
  if (!entry) return undefined;
  if (entry.size > MAX_TEXT) {
    throw new FormatError(
      `${name}: its .${extension} has ${entry.size} bytes; that is too long for a text.`,
    );
  }
  const bytes = await archive.read(entry.offset, entry.size);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${name}: its .${extension} is not UTF-8 text.`, { cause });
  }
}

/** Reads the number in each .cls file; returns undefined if no sample has one. */
async function readLabels(
  samples: readonly Sample[],
): Promise<readonly (number | undefined)[] | undefined> {
  if (!samples.some(({ parts }) => parts.has("cls"))) return undefined;
  const labels: (number | undefined)[] = [];
  for (const sample of samples) {
    const name = `${quote(sample.key)} in ${sample.archive.name}`;
    const text = await readText(sample, "cls", name);
    if (text !== undefined && !/^\s*\d{1,6}\s*$/.test(text)) {
      throw new FormatError(`${name}: its .cls holds ${quote(text)}, which is not a class number.`);
    }
    labels.push(text === undefined ? undefined : Number(text));
  }
  return labels;
}
