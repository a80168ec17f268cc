/**
 * Where text meets the terminal: names of files, classes and models, captions and errors may hold anything, also sequences
 * that clear the screen, rename the window or look like a message of ours.
 */

import { printable } from "../engine/errors.ts";

/** The required part of process.stdout or process.stderr. */
export interface TextStream {
  write(text: string): unknown;
}

/** Writes one line. Line ends within it are shown, so that no name can pass for a line of its own. */
export function writeLine(stream: TextStream, line: string): void {
  stream.write(`${printable(line)}\n`);
}

/** Writes a text of several lines, such as a table. */
export function writeText(stream: TextStream, text: string): void {
  stream.write(text.split("\n").map(printable).join("\n"));
}

/** Writes a value as one line of JSON. */
export function writeJsonLine(stream: TextStream, value: unknown): void {
  writeLine(stream, JSON.stringify(value));
}
