/** Reads the metadata.jsonl or metadata.csv of an image folder in Hugging Face's layout. */
import { CsvError, parse } from "csv-parse/sync";
import { FormatError, quote } from "../../engine/errors.ts";
import { parsePythonJson } from "../../weights/python-json.ts";
import { captionNames, captionsOf, chooseColumn, labelNames } from "./columns.ts";

/** What one row says about a picture. */
export interface MetadataRow {
  readonly line: number;
  /** Path relative to the folder of the metadata file, with "/" and without "." or "..". */
  readonly file: string;
  readonly captions: readonly string[];
  readonly label: string | undefined;
}

export interface Metadata {
  readonly captioned: boolean;
  readonly labelled: boolean;
  readonly rows: readonly MetadataRow[];
}

interface RawRow {
  readonly line: number;
  readonly cells: ReadonlyMap<string, unknown>;
}

/**
 * Parses a metadata file.
 *
 * @param name path of the file; its extension selects the format
 * @param columns the columns of captions and labels, if the config names them
 * @throws FormatError that names the line; UsageError if a named column does not exist
 */
export function parseMetadata(
  text: string,
  name: string,
  columns: {
    readonly caption: string | false | undefined;
    readonly label: string | false | undefined;
  },
): Metadata {
  const rows = /\.csv$/i.test(name) ? csvRows(text, name) : jsonRows(text, name);
  const available = [...new Set(rows.flatMap(({ cells }) => [...cells.keys()]))];
  if (!available.includes("file_name")) {
    throw new FormatError(
      `${name} has no column file_name, which names the picture of each row${available.length > 0 ? `; it has ${available.slice(0, 8).map(quote).join(", ")}` : ""}.`,
    );
  }
  const caption = chooseColumn("caption", columns.caption, captionNames, available, name);
  const label = chooseColumn("label", columns.label, labelNames, available, name);
  const metadata = {
    captioned: caption !== undefined,
    labelled: label !== undefined,
    rows: rows.map(({ line, cells }) => ({
      line,
      file: fileOf(cells.get("file_name"), line, name),
      captions:
        caption === undefined
          ? []
          : (captionsOf(cells.get(caption)) ??
            fail(name, line, `${caption} is neither a string nor a list of strings`)),
      label: label === undefined ? undefined : labelOf(cells.get(label), label, line, name),
    })),
  };
  if (!caption && !label && columns.caption !== false && columns.label !== false) {
    const columnsThere = available.slice(0, 8).map(quote).join(", ");
    throw new FormatError(
      `${name} describes no pictures: its columns are ${columnsThere}, and none is called ${[...captionNames, ...labelNames].join(", ")}; rename one, or name it in the config as data.caption or data.label.`,
    );
  }
  return metadata;
}

function fail(name: string, line: number, problem: string): never {
  throw new FormatError(`${name} cannot be used: on line ${line}, ${problem}.`);
}

/** Returns a path that stays inside the folder, since the metadata may come from anywhere. */
function fileOf(cell: unknown, line: number, name: string): string {
  if (typeof cell !== "string" || cell === "") fail(name, line, "file_name is not a string");
  const parts = cell.split("/").filter((part) => part !== "" && part !== ".");
  if (cell.startsWith("/") || parts.includes("..") || parts.length === 0) {
    fail(name, line, `file_name is ${quote(cell)}, which is outside the folder`);
  }
  return parts.join("/");
}

function labelOf(cell: unknown, column: string, line: number, name: string): string | undefined {
  if (cell === null || cell === undefined || cell === "") return undefined;
  if (typeof cell === "string") return cell;
  if (typeof cell === "number" && Number.isSafeInteger(cell)) return String(cell);
  return fail(name, line, `${column} is neither a string nor a whole number`);
}

function csvRows(text: string, name: string): RawRow[] {
  const [header, ...rows] = parseCsv(text, name);
  const columns = header?.fields ?? [];
  const twice = columns.find((column, i) => columns.indexOf(column) !== i);
  if (twice !== undefined) throw new FormatError(`${name} has the column ${quote(twice)} twice.`);
  return rows.map(({ line, fields }) => ({
    line,
    cells: new Map(columns.map((column, i) => [column, fields[i]])),
  }));
}

function jsonRows(text: string, name: string): RawRow[] {
  return text
    .replace(/^\ufeff/, "")
    .split("\n")
    .flatMap((source, i) => {
      if (source.trim() === "") return [];
      const line = i + 1;
      return { line, cells: new Map(Object.entries(objectOf(source, line, name))) };
    });
}

function objectOf(source: string, line: number, name: string): object {
  let value: unknown;
  try {
    value = parsePythonJson(source, null);
  } catch (error) {
    return fail(name, line, `the JSON is not valid: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  return fail(name, line, "the JSON is not an object");
}

export interface CsvRow {
  /** The line on which the row begins, from 1. */
  readonly line: number;
  readonly fields: readonly string[];
}

/**
 * Splits a table (RFC 4180) into rows with equally many fields. Empty lines are skipped.
 *
 * @param name how errors name the file
 * @throws FormatError that names the line if a quote is misplaced or a row has too few or too many fields
 */
export function parseCsv(text: string, name: string): CsvRow[] {
  const rows: CsvRow[] = [];
  let ended = 0;
  // csv-parse counts both characters of a CRLF inside quotes.
  let countedTwice = 0;
  try {
    parse(text, {
      bom: true,
      skip_empty_lines: true,
      record_delimiter: ["\r\n", "\n", "\r"],
      on_record(fields: string[], { lines }) {
        const inside = fields.join("");
        ended = lines - countedTwice;
        const line = ended - (inside.match(/[\r\n]/g)?.length ?? 0);
        const double = inside.match(/\r\n/g)?.length ?? 0;
        countedTwice += double;
        ended -= double;
        if (fields.length > 1 || fields[0] !== "") rows.push({ line, fields });
        return null;
      },
    });
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new FormatError(
      `${name} is not a table of comma-separated values: line ${csvProblem(error, ended + 1, rows)}.`,
      { cause: error },
    );
  }
  return rows;
}

function csvProblem(error: CsvError, begin: number, [first]: readonly CsvRow[]): string {
  switch (error.code) {
    case "CSV_RECORD_INCONSISTENT_FIELDS_LENGTH": {
      const { length } = error["record"] as readonly string[];
      return `${begin} has ${length} fields, but the first row has ${first?.fields.length}`;
    }
    case "CSV_QUOTE_NOT_CLOSED":
      return `${begin} opens a quote that is never closed`;
    case "CSV_INVALID_CLOSING_QUOTE":
      return `${String(error["lines"])} continues after a closing quote`;
    default:
      return `${String(error["lines"])} has a quote inside a field that does not begin with one`;
  }
}
