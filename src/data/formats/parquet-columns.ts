/**
 * Finds the columns with pictures, captions and classes of a parquet file by their types and by Hugging
 * Face's metadata, and checks their pages before hyparquet decodes them: it trusts their headers, and reads
 * forever if a damaged one lacks a number.
 */
import { tryJson } from "../../engine/bytes.ts";
import {
  type ColumnMetaData,
  type FileMetaData,
  type PageHeader,
  parquetSchema,
  type RowGroup,
  type SchemaTree,
} from "hyparquet";
import * as z from "zod";
import { UsageError } from "../../engine/errors.ts";
import { captionNames, chooseColumn, labelNames } from "./columns.ts";
import { checkRuns, type RunRules } from "./parquet-runs.ts";
import { parquetHeader } from "hyparquet/src/column.js";

export interface ParquetColumns {
  readonly image: string;
  readonly caption: string | undefined;
  readonly label: string | undefined;
  /** Names of the classes, if the metadata has them. */
  readonly classes: readonly string[] | undefined;
  /** Columns of texts that are not read, if there are neither captions nor classes. */
  readonly unread: readonly string[];
}

/** The columns that a config names. */
interface Wanted {
  readonly image?: string | undefined;
  readonly caption?: string | false | undefined;
  readonly label?: string | false | undefined;
}

const feature = z
  .looseObject({ _type: z.string(), names: z.array(z.string()).optional() })
  .transform(({ _type: type, names }) => ({ type, names }));

const huggingFace = z.looseObject({
  info: z.looseObject({ features: z.record(z.string(), z.unknown()) }),
});

/**
 * Chooses the columns of a file.
 *
 * @param where how errors name the file
 * @throws UsageError if a column does not exist, or several are possible and the config names none
 */
export function chooseColumns(
  metadata: FileMetaData,
  wanted: Wanted,
  where: string,
): ParquetColumns {
  const columns = parquetSchema(metadata).children;
  const names = columns.map(({ element }) => element.name);
  const features = featuresOf(metadata);
  const ofType = (type: string) => names.filter((name) => features.get(name)?.type === type);

  const pictures = ofType("Image");
  const image = chooseColumn(
    "image",
    wanted.image,
    pictures.length > 0
      ? pictures
      : columns.filter(holdsPictures).map(({ element }) => element.name),
    names,
    where,
  );
  if (image === undefined) {
    throw new UsageError(
      `${where} has no column of pictures; it has ${names.slice(0, 8).join(", ") || "none at all"}; say with \`image\` which one to use.`,
    );
  }
  const classLabels = ofType("ClassLabel");
  const label = chooseColumn(
    "label",
    wanted.label,
    classLabels.length > 0 ? classLabels : labelNames,
    names,
    where,
  );
  const caption = chooseColumn("caption", wanted.caption, captionNames, names, where);
  const described = caption !== undefined || label !== undefined || wanted.caption === false;
  return {
    image,
    caption,
    label,
    unread: described ? [] : columns.filter(holdsTexts).map(({ element }) => element.name),
    classes: label === undefined ? undefined : features.get(label)?.names,
  };
}

/** Returns true for a column of texts. */
function holdsTexts({ element }: SchemaTree): boolean {
  return element.converted_type === "UTF8" || element.logical_type?.type === "STRING";
}

/** Accepts a column of bytes, or Hugging Face's struct of bytes and a path. */
function holdsPictures({ element, children }: SchemaTree): boolean {
  if (children.length > 0) {
    return children.some(
      ({ element: { name, type } }) => name === "bytes" && type === "BYTE_ARRAY",
    );
  }
  const isText = element.converted_type !== undefined || element.logical_type !== undefined;
  return element.type === "BYTE_ARRAY" && !isText;
}

function featuresOf(metadata: FileMetaData): ReadonlyMap<string, z.output<typeof feature>> {
  const text = metadata.key_value_metadata?.find(({ key }) => key === "huggingface")?.value;
  const parsed = huggingFace.safeParse(text === undefined ? undefined : tryJson(text));
  // Files by other writers have no such metadata; their columns are found by type.
  const features = parsed.success ? Object.entries(parsed.data.info.features) : [];
  return new Map(
    features.flatMap(([name, value]) => {
      const { data } = feature.safeParse(value);
      return data ? [[name, data] as const] : [];
    }),
  );
}

const size = z.int().min(0);

const header = z.union([
  z.looseObject({
    type: z.literal("DATA_PAGE"),
    data_page_header: z.looseObject({ num_values: size, encoding: z.string() }),
  }),
  z.looseObject({
    type: z.literal("DATA_PAGE_V2"),
    data_page_header_v2: z.looseObject({
      num_values: size,
      num_nulls: size,
      num_rows: size,
      encoding: z.string(),
      definition_levels_byte_length: size,
      repetition_levels_byte_length: size,
    }),
  }),
  z.looseObject({
    type: z.literal("DICTIONARY_PAGE"),
    dictionary_page_header: z.looseObject({ num_values: size }),
  }),
]);

// Writers aim at pages of a megabyte; a single picture may need more, but not this much.
const MAX_PAGE = 2 ** 30;

/**
 * Returns the byte ranges of some columns of a row group.
 *
 * @throws Error if a range lies outside the file
 */
export function columnRanges(
  { columns }: RowGroup,
  names: readonly string[],
  fileSize: number,
): { readonly start: number; readonly end: number; readonly meta: ColumnMetaData }[] {
  return columns.flatMap(({ meta_data: meta }) => {
    if (!meta) throw new Error("a column has no metadata");
    if (!names.includes(meta.path_in_schema[0] ?? "")) return [];
    const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
    const end = start + Number(meta.total_compressed_size);
    if (!(start >= 0 && start <= end && end <= fileSize)) {
      throw new Error(`a column is declared at bytes ${start} to ${end} of ${fileSize}`);
    }
    return [{ start, end, meta }];
  });
}

/** @throws Error unless the bytes of a column consist of pages with valid headers and runs */
export function checkPages(column: Uint8Array, rules: RunRules): void {
  const view = new DataView(column.buffer, column.byteOffset, column.byteLength);
  const reader = { view, offset: 0 };
  while (reader.offset < column.length) {
    const at = reader.offset;
    const page = parquetHeader(reader);
    if (!isSound(page, column.length - reader.offset)) {
      throw new Error(`the header of a page at byte ${at} of a column is damaged`);
    }
    const { offset } = reader;
    reader.offset += page.compressed_page_size;
    checkRuns(page, column.subarray(offset, reader.offset), rules);
  }
}

function isSound(page: PageHeader, left: number): boolean {
  const { compressed_page_size: compressed, uncompressed_page_size: uncompressed } = page;
  if (!(compressed >= 0 && compressed <= left)) return false;
  if (!(uncompressed >= 0 && uncompressed <= MAX_PAGE)) return false;
  const levels = page.data_page_header_v2;
  const levelBytes = levels
    ? levels.definition_levels_byte_length + levels.repetition_levels_byte_length
    : 0;
  return header.safeParse(page).success && levelBytes <= Math.min(compressed, uncompressed);
}
