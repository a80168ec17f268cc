/**
 * Reads parquet files with a column of pictures, as Hugging Face publishes them. Row groups are read on
 * demand.
 */
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
  parquetReadObjects,
} from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { clip, FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
import type { ByteSource } from "../../weights/sources/source.ts";
import { captionsOf, classesOf } from "./columns.ts";
import type { DataConfigOf } from "../config.ts";
import type { PictureShape } from "../../pictures/picture.ts";
import type { DataSet } from "../dataset.ts";
import { runRules } from "./parquet-runs.ts";
import { checkPages, chooseColumns, columnRanges, type ParquetColumns } from "./parquet-columns.ts";
import { decodePicture } from "../../pictures/decode-node.ts";
import { openShards } from "./files-node.ts";

type Config = DataConfigOf<"parquet">;
type Row = Readonly<Record<string, unknown>>;

/**
 * Bytes of encoded pictures that stay in memory: neighbouring rows are in one row group, which is read as a
 * whole.
 */
const KEPT = 2 ** 29;

interface Shard {
  readonly path: string;
  readonly file: AsyncBuffer;
  readonly metadata: FileMetaData;
  readonly columns: ParquetColumns;
}

interface RowGroup {
  readonly shard: Shard;
  readonly pages: FileMetaData["row_groups"][number];
  /** Its first row within the file, and within the data set. */
  readonly inFile: number;
  readonly first: number;
  readonly count: number;
}

/** @throws UsageError if a file or column does not exist; FormatError if a file is damaged */
export function openParquet(config: Config, shape: PictureShape): Promise<DataSet> {
  return openShards(
    config,
    ".parquet",
    async (source, path) => [await readFooter(source, path, config)],
    (shards) => describe(config, shape, shards),
  );
}

async function readFooter(source: ByteSource, path: string, config: Config): Promise<Shard> {
  const file: AsyncBuffer = {
    byteLength: source.size,
    slice(start, end = source.size) {
      const read = source.read(start, end - start).then((bytes) => new Uint8Array(bytes).buffer);
      // hyparquet reads ahead. If it stops at a damaged page, nobody waits for what it had asked for, and that the file was
      // closed meanwhile would end the process.
      read.catch(() => {});
      return read;
    },
  };
  const metadata = await sound(path, () => parquetMetadataAsync(file, { geoparquet: false }));
  const columns = await sound(path, async () => chooseColumns(metadata, config, path));
  return { path, file, metadata, columns };
}

/** hyparquet throws plain errors, and a damaged length can cause a RangeError. */
async function sound<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof PatchwiseError) throw cause;
    throw new FormatError(
      `${path} cannot be read as parquet: ${(cause as Error).message}; download it again.`,
      { cause },
    );
  }
}

async function describe(
  config: Config,
  shape: PictureShape,
  shards: readonly Shard[],
): Promise<Omit<DataSet, "close">> {
  const groups = rowGroups(shards);
  const last = groups.at(-1);
  const count = last ? last.first + last.count : 0;
  if (count === 0)
    throw new UsageError(`${config.path} has no rows; set \`path\` to a file that has.`);
  requireAlike(shards);
  const [{ columns }] = shards as [Shard, ...Shard[]];
  const labels = await labelling(config, shards, groups);
  const { image, caption, label } = columns;
  const rowsOf = rowReader([image, caption, label], KEPT);
  // Pictures are most of a file, so what is beside them is read without them.
  const textsOf = rowReader([caption, label], 0);
  const groupOf = (index: number) => groups[groupIndex(groups, index)]!;
  const nameOf = (index: number) => {
    const { shard, inFile, first } = groupOf(index);
    return `row ${inFile + index - first} of ${shard.path}`;
  };
  const rowAt = async (index: number, from: typeof rowsOf) => {
    const group = groupOf(index);
    return (await from(group))[index - group.first]!;
  };
  const descriptionOf = (row: Row, index: number) => {
    const texts = captionsOf(caption === undefined ? undefined : row[caption]);
    if (!texts) {
      throw new FormatError(
        `${nameOf(index)}: ${caption} is neither a string nor a list of strings.`,
      );
    }
    return {
      label: label === undefined ? undefined : labels?.indexOf(row[label], nameOf(index)),
      captions: texts,
    };
  };
  return {
    name: config.path,
    count,
    classes: labels?.classes,
    captioned: columns.caption !== undefined,
    memory: KEPT,
    nameOf,
    notes:
      columns.unread.length === 0
        ? []
        : [
            `${config.path} has texts in ${columns.unread.slice(0, 8).join(", ")}, which are not read, so its pictures have no captions; name the column of captions with data.caption.`,
          ],
    described: async (index) =>
      caption === undefined && label === undefined
        ? { label: undefined, captions: [] }
        : descriptionOf(await rowAt(index, textsOf), index),
    example: async (index) => {
      const row = await rowAt(index, rowsOf);
      const bytes = bytesOf(row[columns.image], nameOf(index));
      return {
        pixels: await decodePicture(bytes, nameOf(index), shape, config),
        ...descriptionOf(row, index),
      };
    },
  };
}

/** @throws UsageError if files differ in their columns or classes: a label would mean something else in each */
function requireAlike([first, ...others]: readonly Shard[]): void {
  for (const { path, columns } of others) {
    for (const field of ["image", "caption", "label", "classes"] as const) {
      const [one, other] = [first!.columns, columns].map((each) =>
        clip(String(each[field] ?? "none")),
      );
      if (one === other) continue;
      throw new UsageError(
        `${first!.path} and ${path} are not of one data set: their ${field === "classes" ? field : `columns for \`${field}\``} differ (${one}; ${other}); set \`path\` to one of them, or name a column that all have.`,
      );
    }
  }
}

function rowGroups(shards: readonly Shard[]): RowGroup[] {
  const groups: RowGroup[] = [];
  let first = 0;
  for (const shard of shards) {
    let inFile = 0;
    for (const pages of shard.metadata.row_groups) {
      const count = Number(pages.num_rows);
      // A picture takes more than a byte, so a file has fewer rows than bytes.
      if (!(count >= 0 && inFile + count < shard.file.byteLength)) {
        throw new FormatError(
          `${shard.path} says that a row group has ${pages.num_rows} rows, more than its size allows; download it again.`,
        );
      }
      if (count > 0) groups.push({ shard, pages, inFile, first, count });
      inFile += count;
      first += count;
    }
    if (Number(shard.metadata.num_rows) !== inFile) {
      throw new FormatError(
        `${shard.path} says that it has ${shard.metadata.num_rows} rows, but its row groups have ${inFile}; download it again.`,
      );
    }
  }
  return groups;
}

/** The index of the last group that begins at or before a row. */
function groupIndex(groups: readonly RowGroup[], index: number): number {
  let low = 0;
  let high = groups.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (groups[middle]!.first <= index) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Reads rows by whole groups and keeps the most recently used groups in memory. */
function rowReader(
  names: readonly (string | undefined)[],
  most: number,
): (group: RowGroup) => Promise<readonly Row[]> {
  const columns = names.filter((name) => name !== undefined);
  const kept = new Map<RowGroup, { readonly rows: Promise<readonly Row[]>; bytes: number }>();
  let total = 0;
  const forget = (group: RowGroup) => {
    total -= kept.get(group)?.bytes ?? 0;
    kept.delete(group);
  };
  return async (group) => {
    const known = kept.get(group);
    if (known) {
      // Moves the group to the end: a Map keeps the order of insertion.
      kept.delete(group);
      kept.set(group, known);
      return known.rows;
    }
    const { image } = group.shard.columns;
    const entry = { rows: readRows(group, columns), bytes: 0 };
    kept.set(group, entry);
    try {
      const rows = await entry.rows;
      entry.bytes = rows.reduce((sum, row) => sum + (rawBytes(row[image])?.length ?? 1), 0);
      total += entry.bytes;
      for (const other of kept.keys()) {
        if (total <= most) break;
        if (other !== group) forget(other);
      }
      return rows;
    } catch (error) {
      kept.delete(group);
      throw error;
    }
  };
}

async function readRows(
  { shard, pages, inFile, count }: RowGroup,
  columns: readonly string[],
): Promise<readonly Row[]> {
  const rows = await sound(shard.path, async () => {
    for (const { start, end, meta } of columnRanges(pages, columns, shard.file.byteLength)) {
      const rules = runRules(shard.metadata, meta, compressors);
      checkPages(new Uint8Array(await shard.file.slice(start, end)), rules);
    }
    const options = {
      file: shard.file,
      metadata: shard.metadata,
      columns: [...columns],
      rowStart: inFile,
      rowEnd: inFile + count,
      compressors,
      // Only columns that are declared as text are decoded; pictures must stay bytes.
      utf8: false,
      geoparquet: false,
    };
    // hyparquet waits for the first of several damaged columns only, and the error of another would end the process.
    for (const column of pages.columns) {
      if (!columns.includes(column.meta_data?.path_in_schema[0] ?? "")) continue;
      const alone = { ...shard.metadata, row_groups: [{ ...pages, columns: [column] }] };
      await parquetRead({ ...options, metadata: alone, rowStart: 0, rowEnd: count });
    }
    return parquetReadObjects(options);
  });
  if (rows.length === count) return rows;
  throw new FormatError(
    `${shard.path}: the row group at row ${inFile} should have ${count} rows, but has ${rows.length}; download it again.`,
  );
}

function rawBytes(cell: unknown): Uint8Array | undefined {
  if (cell instanceof Uint8Array) return cell;
  if (typeof cell !== "object" || cell === null || !("bytes" in cell)) return undefined;
  return cell.bytes instanceof Uint8Array ? cell.bytes : undefined;
}

function bytesOf(cell: unknown, name: string): Uint8Array {
  const bytes = rawBytes(cell);
  if (bytes) return bytes;
  const path =
    typeof cell === "object" && cell !== null && "path" in cell && typeof cell.path === "string";
  throw new FormatError(
    `${name} holds ${path ? "only the path of a picture, not its bytes" : "no picture"}.`,
  );
}

interface Labelling {
  readonly classes: readonly string[];
  indexOf(cell: unknown, name: string): number | undefined;
}

/** Returns how to read the column of labels. Its distinct values are the classes if nothing names them. */
async function labelling(
  config: Config,
  shards: readonly Shard[],
  groups: readonly RowGroup[],
): Promise<Labelling | undefined> {
  const [{ columns }] = shards as [Shard, ...Shard[]];
  const { label } = columns;
  if (label === undefined) return undefined;
  const numbered = config.classes ?? columns.classes;
  if (numbered) {
    return {
      classes: numbered,
      indexOf: (cell, name) => {
        const value = labelText(cell, name);
        // Hugging Face's test splits have −1 for labels that are not published.
        if (value === undefined || value === "-1") return undefined;
        const index = typeof cell === "string" ? numbered.indexOf(value) : Number(value);
        if (index >= 0 && index < numbered.length) return index;
        throw new FormatError(
          `${name} has the label ${value}, but there are ${numbered.length} classes.`,
        );
      },
    };
  }
  const seen = new Set<string>();
  for (const group of groups) {
    for (const row of await readRows(group, [label])) {
      const value = labelText(row[label], group.shard.path);
      if (value !== undefined && value !== "-1") seen.add(value);
    }
  }
  const classes = classesOf(seen);
  const indices = new Map(classes.map((name, i) => [name, i]));
  return { classes, indexOf: (cell, name) => indices.get(labelText(cell, name) ?? "") };
}

function labelText(cell: unknown, name: string): string | undefined {
  if (cell === null || cell === undefined) return undefined;
  if (typeof cell === "string") return cell;
  if (typeof cell === "bigint" || (typeof cell === "number" && Number.isSafeInteger(cell))) {
    return String(cell);
  }
  throw new FormatError(`${name} has a label that is neither a string nor a whole number.`);
}
