/** metadata.jsonl and metadata.csv beside pictures, as Hugging Face's image folders have them. */
import { FormatError } from "../../engine/errors.ts";
import { quote } from "../../engine/messages.ts";
import { captionNames, captionsOf, chooseColumn, labelNames } from "./columns.ts";
import { parseCsv } from "./csv.ts";

/** What one row says of a picture. */
export interface MetadataRow {
  readonly line: number;
  /** Relative to the folder of the metadata, with "/", without "." or "..". */
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
 * Reads the rows of one file.
 *
 * @param name path of the file, whose ending says which format it is
 * @param columns the columns of captions and labels as a config may name them
 * @throws FormatError that names the line, UsageError for a column that is not there
 */
export function parseMetadata(
  text: string,
  name: string,
  columns: {
    readonly caption: string | false | undefined;
    readonly label: string | false | undefined;
  },
): Metadata {
  const rows = name.endsWith(".csv") ? csvRows(text, name) : jsonRows(text, name);
  const available = [...new Set(rows.flatMap(({ cells }) => [...cells.keys()]))];
  if (!available.includes("file_name")) {
    throw new FormatError(
      `${name} has no column file_name, which says of which picture each row speaks${available.length > 0 ? `; it has ${available.slice(0, 8).map(quote).join(", ")}` : ""}.`,
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
            fail(name, line, `its ${caption} is neither a text nor a list of texts`)),
      label: label === undefined ? undefined : labelOf(cells.get(label), label, line, name),
    })),
  };
  if (!caption && !label && columns.caption !== false && columns.label !== false) {
    const columnsThere = available.slice(0, 8).map(quote).join(", ");
    throw new FormatError(
      `${name} says nothing of its pictures: its columns are ${columnsThere}, of which none is called ${[...captionNames, ...labelNames].join(", ")}; rename one, or name it in the config as data.caption or data.label.`,
    );
  }
  return metadata;
}

function fail(name: string, line: number, problem: string): never {
  throw new FormatError(`${name} cannot be used: on line ${line}, ${problem}.`);
}

/** A path that stays inside the folder: metadata may come from anywhere. */
function fileOf(cell: unknown, line: number, name: string): string {
  if (typeof cell !== "string" || cell === "") fail(name, line, "file_name is not a text");
  const parts = cell.split("/").filter((part) => part !== "" && part !== ".");
  if (cell.startsWith("/") || parts.includes("..") || parts.length === 0) {
    fail(name, line, `file_name is ${quote(cell)}, which does not lie in the folder`);
  }
  return parts.join("/");
}

function labelOf(cell: unknown, column: string, line: number, name: string): string | undefined {
  if (cell === null || cell === undefined || cell === "") return undefined;
  if (typeof cell === "string") return cell;
  if (typeof cell === "number" && Number.isSafeInteger(cell)) return String(cell);
  return fail(name, line, `its ${column} is neither a text nor a whole number`);
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
    value = JSON.parse(source);
  } catch (error) {
    return fail(name, line, `what stands there is not valid JSON: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  return fail(name, line, "what stands there is no JSON object");
}
