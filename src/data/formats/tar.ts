/** Lists the files of a tar archive (POSIX ustar and pax, GNU long names) by reading only the headers. */
import { FormatError, quote } from "../../engine/errors.ts";
import type { ByteSource } from "../../weights/sources/source.ts";

export interface TarEntry {
  readonly name: string;
  /** Byte at which its content begins in the archive. */
  readonly offset: number;
  readonly size: number;
}

const BLOCK = 512;

// Headers are read through a window: one read covers many small files, and large files are skipped.
const WINDOW = 2 ** 16;

// Extended headers hold names and times. A larger one is not kept in memory.
const MAX_EXTENDED = 2 ** 20;

/**
 * Lists the regular files of an archive in its order, and links to them as files of their own. Folders, devices and links that
 * lead out of the archive are skipped. Archives that were joined end to end are read as one.
 *
 * @throws FormatError if a header is damaged, the archive is truncated, or something else follows its end mark
 */
export async function tarEntries(source: ByteSource): Promise<TarEntry[]> {
  const entries: TarEntry[] = [];
  const links = new Map<string, string>();
  const read = windowed(source);
  const fail = (at: number, problem: string): never => {
    throw new FormatError(`${source.name} is not a valid tar archive: at byte ${at}, ${problem}.`);
  };

  /** The values of extended headers that apply to the next entry. */
  let name: string | undefined;
  let link: string | undefined;
  let size: number | undefined;
  for (let at = 0, ended = false; ;) {
    if (at + BLOCK > source.size) {
      if (ended) return [...entries, ...linked(entries, links)];
      if (at === 0) refuseCompressed(await read(0, source.size), source.name);
      fail(at, "it ends without an end mark; it may be cut off, so download it again");
    }
    const header = await read(at, BLOCK);
    if (header.every((byte) => byte === 0)) {
      ended = true;
      at += BLOCK;
      continue;
    }
    if (!checksumMatches(header)) {
      if (at === 0) refuseCompressed(header, source.name);
      fail(at, ended ? "no archive follows the end mark" : "the checksum of a header is wrong");
    }
    ended = false;
    const type = String.fromCharCode(header[156]!);
    const isFile = type === "0" || type === "\0" || type === "7";
    const isLink = type === "1" || type === "2";
    // Some programs give a hard link the size of its file, although no bytes follow.
    const length =
      (isFile ? size : isLink ? 0 : undefined) ??
      numberField(header.subarray(124, 136)) ??
      fail(at, "the size of a file is not a number");
    const offset = at + BLOCK;
    if (offset + length > source.size) {
      fail(at, `a file of ${length} bytes extends past the end; download the archive again`);
    }
    const own = name ?? nameField(header);
    if (isFile) {
      entries.push({ name: own, offset, size: length });
    } else if (isLink) {
      const target = link ?? text(untilZero(header.subarray(157, 257)));
      // A hard link names its file from the root of the archive, and a symbolic link from its own folder.
      links.set(own, type === "1" ? target : `${own.slice(0, own.lastIndexOf("/") + 1)}${target}`);
    }
    if (type === "x" || type === "L" || type === "K") {
      if (length > MAX_EXTENDED) fail(at, `an extended header has ${length} bytes`);
      const body = await read(offset, length);
      if (type === "L") name = text(untilZero(body));
      else if (type === "K") link = text(untilZero(body));
      else {
        const records = paxRecords(body) ?? fail(at, "an extended header is damaged");
        name = records.get("path") ?? name;
        link = records.get("linkpath") ?? link;
        const stated = records.get("size");
        if (stated !== undefined) {
          size = /^\d{1,15}$/.test(stated)
            ? Number(stated)
            : fail(at, `an extended header gives the size ${quote(stated)}`);
        }
      }
    } else if (type !== "g") {
      // The extended headers applied to this file, folder, link or device.
      [name, link, size] = [undefined, undefined, undefined];
    }
    at = offset + Math.ceil(length / BLOCK) * BLOCK;
  }
}

/** The first bytes of compressed archives, and of archives of other kinds. */
const compressed: Readonly<Record<string, readonly number[]>> = {
  gzip: [0x1f, 0x8b],
  bzip2: [0x42, 0x5a, 0x68],
  xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
  zip: [0x50, 0x4b, 0x03, 0x04],
  "7z": [0x37, 0x7a, 0xbc, 0xaf],
  rar: [0x52, 0x61, 0x72, 0x21],
};

function refuseCompressed(beginning: Uint8Array, name: string): void {
  for (const [kind, bytes] of Object.entries(compressed)) {
    if (!bytes.every((byte, i) => beginning[i] === byte)) continue;
    throw new FormatError(
      `${name} is compressed (${kind}), so its files cannot be read one by one; unpack it first.`,
    );
  }
}

/** The links whose files are in the archive, as files. */
function linked(
  entries: readonly TarEntry[],
  links: ReadonlyMap<string, string>,
): readonly TarEntry[] {
  const files = new Map(entries.map((entry) => [resolved(entry.name), entry]));
  return [...links].flatMap(([name, target]) => {
    let file = files.get(resolved(target));
    // A link may lead to a link; as many steps as there are links cannot go round.
    for (let i = 0, next = target; !file && i < links.size; i++) {
      const further = links.get(next);
      if (further === undefined) break;
      next = further;
      file = files.get(resolved(next));
    }
    return file ? [{ ...file, name }] : [];
  });
}

/** A path without "." and "..". */
function resolved(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}

/** Reads ranges of the source through a window that moves forward. */
function windowed(source: ByteSource): (offset: number, length: number) => Promise<Uint8Array> {
  let start = 0;
  let window = new Uint8Array(0);
  return async (offset, length) => {
    if (offset < start || offset + length > start + window.length) {
      start = offset;
      window = await source.read(offset, Math.min(Math.max(WINDOW, length), source.size - offset));
    }
    return window.subarray(offset - start, offset - start + length);
  };
}

/** The sum of all bytes of a header, with those of the checksum itself counted as spaces. */
function checksumMatches(header: Uint8Array): boolean {
  const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  return numberField(header.subarray(148, 156)) === sum;
}

/** Parses octal digits or, if the highest bit is set, GNU's big-endian binary numbers for files over 8 GiB. */
function numberField(field: Uint8Array): number | undefined {
  if (field[0] === 0x80) {
    const value = field.subarray(1).reduce((high, byte) => high * 256 + byte, 0);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const digits = text(untilZero(field)).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}

function nameField(header: Uint8Array): string {
  const name = text(untilZero(header.subarray(0, 100)));
  const isUstar = text(header.subarray(257, 263)) === "ustar\0";
  const prefix = isUstar ? text(untilZero(header.subarray(345, 500))) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** Parses records such as "27 path=a/long/name.jpg\n", each of which begins with its own length in bytes. */
function paxRecords(body: Uint8Array): Map<string, string> | undefined {
  const records = new Map<string, string>();
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at);
    const digits = text(body.subarray(at, space === -1 ? at : space));
    const length = /^[1-9]\d{0,7}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    if (end <= space || end > body.length || body[end - 1] !== 0x0a) return undefined;
    const record = text(body.subarray(space + 1, end - 1));
    const equals = record.indexOf("=");
    if (equals < 1) return undefined;
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at = end;
  }
  return records;
}

function untilZero(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return end === -1 ? bytes : bytes.subarray(0, end);
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
