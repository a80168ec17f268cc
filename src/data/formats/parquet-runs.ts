/**
 * Checks runs of repeated values in parquet's pages (levels, and indices into a dictionary). hyparquet writes as many values as a run says,
 * so a damaged one would take all memory and time.
 */
import type { ColumnMetaData, Compressors, FileMetaData, PageHeader } from "hyparquet";
import { decompressPage } from "hyparquet/src/datapage.js";
import {
  getMaxDefinitionLevel,
  getMaxRepetitionLevel,
  getSchemaPath,
} from "hyparquet/src/schema.js";

/** More values than writers put into a page. */
const MOST_VALUES = 2 ** 24;

/** The description of a column by which its pages are checked. */
export interface RunRules {
  readonly codec: ColumnMetaData["codec"];
  readonly compressors: Compressors;
  /** The highest levels of repetition and of definition; 0 if a column has none. */
  readonly levels: readonly [repetition: number, definition: number];
}

export function runRules(
  { schema }: FileMetaData,
  { path_in_schema: path, codec }: ColumnMetaData,
  compressors: Compressors,
): RunRules {
  const place = getSchemaPath(schema, path);
  return {
    codec,
    compressors,
    levels: [getMaxRepetitionLevel(place), getMaxDefinitionLevel(place)],
  };
}

/** @throws Error if a run of a page has more values than the page */
export function checkRuns(page: PageHeader, body: Uint8Array, rules: RunRules): void {
  const {
    data_page_header: first,
    data_page_header_v2: second,
    dictionary_page_header: table,
  } = page;
  const count = first ?? second ?? table;
  if (!count || count.num_values > MOST_VALUES) throw new Error("a page has too many values");
  if (table) return;
  const unpacked = (bytes: Uint8Array, size: number) =>
    decompressPage(bytes, size, rules.codec, rules.compressors);
  const [repetition, definition] = rules.levels;
  let values: Uint8Array;
  if (second) {
    const ends = [second.repetition_levels_byte_length, second.definition_levels_byte_length];
    const size = page.uncompressed_page_size - ends[0]! - ends[1]!;
    const [begin, end] = [ends[0]!, ends[0]! + ends[1]!];
    if (repetition > 0) walk(body.subarray(0, begin), widthOf(repetition), second.num_values);
    if (definition > 0) walk(body.subarray(begin, end), widthOf(definition), second.num_values);
    values = body.subarray(end);
    if (second.is_compressed !== false && hasRuns(second.encoding)) values = unpacked(values, size);
  } else {
    values = unpacked(body, page.uncompressed_page_size);
    for (const level of [repetition, definition]) {
      if (level === 0) continue;
      const length = new DataView(values.buffer, values.byteOffset, values.byteLength).getUint32(
        0,
        true,
      );
      walk(values.subarray(4, 4 + length), widthOf(level), count.num_values);
      values = values.subarray(4 + length);
    }
  }
  const encoding = (first ?? second)!.encoding;
  if (encoding === "RLE") walk(values.subarray(4), 1, count.num_values);
  else if (hasRuns(encoding)) walk(values.subarray(1), values[0] ?? 0, count.num_values);
}

function hasRuns(encoding: string): boolean {
  return ["RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY"].includes(encoding);
}

/** Bits of a level. */
function widthOf(most: number): number {
  return 32 - Math.clz32(most);
}

/** Walks over runs and packed groups (Parquet's RLE and bit-packing hybrid) up to this number of values. */
function walk(bytes: Uint8Array, width: number, values: number): void {
  for (let at = 0, seen = 0; seen < values && at < bytes.length;) {
    let header = 0;
    let byte = 128;
    for (let shift = 0; byte & 128 && shift < 35; shift += 7) {
      byte = bytes[at++] ?? 0;
      header += (byte & 127) * 2 ** shift;
    }
    const half = Math.floor(header / 2);
    if (header % 2 === 1) {
      seen += 8 * half;
      at += half * width;
      continue;
    }
    if (half > values - seen) throw new Error("a run of values is damaged");
    seen += half;
    at += Math.ceil(width / 8);
  }
}
