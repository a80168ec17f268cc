/** Comma-separated values as RFC 4180 has them: quoted fields may hold commas, quotes and line ends. */
import { FormatError } from "../../engine/errors.ts";

export interface CsvRow {
  /** The line it begins on, from 1. */
  readonly line: number;
  readonly fields: readonly string[];
}

const QUOTE = '"';

/**
 * Splits a table into rows of equally many fields; empty lines are passed over.
 *
 * @param name how messages call the file
 * @throws FormatError that names the line when a quote is out of place or a row has too few or too many fields
 */
export function parseCsv(text: string, name: string): CsvRow[] {
  const rows: CsvRow[] = [];
  // Excel begins a file with a byte order mark.
  let at = text.startsWith("\ufeff") ? 1 : 0;
  let line = 1;

  const fail = (where: number, problem: string): never => {
    throw new FormatError(
      `${name} is not a table of comma-separated values: line ${where} ${problem}.`,
    );
  };

  /** A field in quotes, from the first of them to behind the last. */
  function quoted(): string {
    const begin = line;
    let value = "";
    for (;;) {
      const end = text.indexOf(QUOTE, at + 1);
      if (end === -1) return fail(begin, "opens a quote that nothing closes");
      const piece = text.slice(at + 1, end);
      value += piece;
      line += piece.split("\n").length - 1;
      at = end + 1;
      if (text[at] !== QUOTE) break;
      // Two quotes stand for one.
      value += QUOTE;
    }
    if (at < text.length && !",\r\n".includes(text[at]!)) {
      fail(line, "goes on after a closing quote");
    }
    return value;
  }

  const ending = /[,\r\n]/g;

  function plain(): string {
    ending.lastIndex = at;
    const end = ending.exec(text)?.index ?? text.length;
    const value = text.slice(at, end);
    if (value.includes(QUOTE))
      fail(line, "has a quote inside a field that does not begin with one");
    at = end;
    return value;
  }

  while (at < text.length) {
    const begin = line;
    const fields: string[] = [];
    for (;;) {
      fields.push(text[at] === QUOTE ? quoted() : plain());
      if (text[at] !== ",") break;
      at++;
    }
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
    line++;
    if (fields.length === 1 && fields[0] === "") continue;
    const expected = rows[0]?.fields.length ?? fields.length;
    if (fields.length !== expected) {
      fail(begin, `has ${fields.length} fields, but the first row has ${expected}`);
    }
    rows.push({ line: begin, fields });
  }
  return rows;
}
