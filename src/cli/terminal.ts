/**
 * Where text meets the terminal: names of files, classes and models, captions and errors may hold anything, also sequences
 * that clear the screen, rename the window or look like a message of ours.
 */

/** The required part of process.stdout or process.stderr. */
export interface TextStream {
  write(text: string): unknown;
}

/** Control characters, and those that change the direction of text or end a line for some programs. */
const controls = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A text without control characters; they are shown as \u001b, which is valid in JSON, too. */
export function printable(text: string): string {
  return text.replace(
    controls,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
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
