/** Writes tar archives (POSIX pax, IEEE Std 1003.1-2001) of plain files. */

/** A file of an archive. */
export interface TarFile {
  /** Its path, with "/" between folders. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

const BLOCK = 512;

/** The longest name that a header holds; a longer one, or one beyond ASCII, is in an extended header before it. */
const NAME = 100;

/**
 * The bytes of an archive, piece by piece. They depend on names and contents only: files have no date, and belong to nobody.
 *
 * @example await writeFileAtomic("pictures.tar", tarOf([{ name: "1.png", bytes }, { name: "1.txt", bytes: text }]));
 */
export function* tarOf(files: Iterable<TarFile>): Generator<Uint8Array> {
  for (const { name, bytes } of files) {
    if (name.length > NAME || /[^\x20-\x7e]/.test(name)) {
      const path = paxRecord("path", name);
      yield* entry("PaxHeader", path, "x");
    }
    yield* entry(name, bytes, "0");
  }
  yield new Uint8Array(2 * BLOCK);
}

function* entry(name: string, bytes: Uint8Array, type: "0" | "x"): Generator<Uint8Array> {
  yield header(name, bytes.length, type);
  yield bytes;
  const rest = bytes.length % BLOCK;
  if (rest > 0) yield new Uint8Array(BLOCK - rest);
}

/** "LENGTH KEY=VALUE\n", whose length counts its own digits. */
function paxRecord(key: string, value: string): Uint8Array {
  const rest = new TextEncoder().encode(` ${key}=${value}\n`).length;
  let length = rest + 1;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return new TextEncoder().encode(`${length} ${key}=${value}\n`);
}

function header(name: string, size: number, type: "0" | "x"): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => bytes.set(new TextEncoder().encode(text), at);
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");
  // Where an extended header has the whole name, readers take it from there.
  put(name.replace(/[^\x20-\x7e]/g, "_").slice(0, NAME), 0);
  put(octal(0o644, 7), 100);
  put(octal(0, 7), 108);
  put(octal(0, 7), 116);
  put(octal(size, 11), 124);
  put(octal(0, 11), 136);
  // The sum counts its own field as spaces.
  put(" ".repeat(8), 148);
  put(type, 156);
  put("ustar\x0000", 257);
  put(`${octal(sum(bytes), 6)}\0 `, 148);
  return bytes;
}

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte) => total + byte, 0);
}
