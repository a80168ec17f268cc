/**
 * Checks the pages of a column before hyparquet decodes them. It trusts their headers, and reads forever if a
 * damaged one lacks a number.
 */
import type { PageHeader, RowGroup } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import * as z from "zod";

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
): { readonly start: number; readonly end: number }[] {
  return columns.flatMap(({ meta_data: meta }) => {
    if (!meta) throw new Error("a column has no metadata");
    if (!names.includes(meta.path_in_schema[0] ?? "")) return [];
    const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
    const end = start + Number(meta.total_compressed_size);
    if (!(start >= 0 && start <= end && end <= fileSize)) {
      throw new Error(`a column is declared at bytes ${start} to ${end} of ${fileSize}`);
    }
    return [{ start, end }];
  });
}

/** @throws Error unless the bytes of a column consist of pages with valid headers */
export function checkPages(column: Uint8Array): void {
  const view = new DataView(column.buffer, column.byteOffset, column.byteLength);
  const reader = { view, offset: 0 };
  while (reader.offset < column.length) {
    const at = reader.offset;
    const page = parquetHeader(reader);
    if (!isSound(page, column.length - reader.offset)) {
      throw new Error(`the header of a page at byte ${at} of a column is damaged`);
    }
    reader.offset += page.compressed_page_size;
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
