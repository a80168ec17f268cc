/**
 * The entropy-coded data of a JPEG (ITU-T T.81), read as far as the bits show whether it is whole. A decoder draws something of
 * data in which a part was overwritten, and says nothing; but the codes then end elsewhere than the data does.
 */

/** A Huffman code as a table over the next 16 bits: length · 256 + symbol, or 0 for bits that are no code. */
type HuffmanTable = Uint16Array;

interface Component {
  readonly id: number;
  /** Blocks across and down in each unit of an interleaved scan. */
  readonly across: number;
  readonly down: number;
  /** Blocks across and down in a scan of this component alone. */
  readonly columns: number;
  readonly rows: number;
  /** Which coefficients of each block an earlier progressive scan gave, 64 a block; scans that refine them depend on it. */
  readonly given: Uint8Array;
}

interface Frame {
  readonly progressive: boolean;
  readonly components: readonly Component[];
  readonly units: number;
}

interface Scan {
  readonly parts: readonly {
    readonly component: Component;
    readonly dc: HuffmanTable;
    readonly ac: HuffmanTable;
  }[];
  /** The first and last coefficient, in zigzag order. */
  readonly first: number;
  readonly last: number;
  /** True if it refines coefficients that an earlier scan began. */
  readonly refines: boolean;
}

/** The table of a code that the file does not define. */
const none: HuffmanTable = new Uint16Array(2 ** 16);

/** Bytes that may follow the last code, since encoders pad. */
const PADDING = 64;

/** Larger pictures are not judged. */
const MOST_PIXELS = 2 ** 26;

/**
 * Whether a part of the data cannot be what an encoder wrote: bits that are no code, coefficients beyond the last of a block, or
 * data left over behind the last block. Pictures other than JPEGs of 8 bits with Huffman codes are not judged.
 *
 * @param bytes a file that a decoder accepts
 */
export function isDamagedJpeg(bytes: Uint8Array): boolean {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  const dc: HuffmanTable[] = [];
  const ac: HuffmanTable[] = [];
  let frame: Frame | undefined;
  let restart = 0;
  let at = 2;
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff) return false;
    const marker = bytes[at + 1]!;
    if (marker === 0xff) at++;
    if (marker === 0xff) continue;
    if (marker === 0xd9) return false;
    const length = word(bytes, at + 2);
    const segment = bytes.subarray(at + 4, at + 2 + length);
    at += 2 + length;
    if (marker >= 0xc0 && marker <= 0xc2) frame = frameOf(segment, marker === 0xc2);
    // Arithmetic codes, lossless and hierarchical frames.
    else if (marker > 0xc4 && marker <= 0xcf && marker !== 0xc8) return false;
    else if (marker === 0xc4) readTables(segment, dc, ac);
    else if (marker === 0xdd) restart = word(segment, 0);
    else if (marker === 0xda) {
      const scan = frame && scanOf(segment, frame, dc, ac);
      const end = endOfScan(bytes, at);
      if (!frame || !scan) return false;
      if (isDamagedScan(bytes.subarray(at, end), scan, frame, restart)) return true;
      at = end;
    }
  }
  return false;
}

const word = (bytes: Uint8Array, at: number) => bytes[at]! * 256 + bytes[at + 1]!;

function frameOf(segment: Uint8Array, progressive: boolean): Frame | undefined {
  const [height, width] = [word(segment, 1), word(segment, 3)];
  // The height may follow the first scan.
  if (segment[0] !== 8 || height === 0 || height * width > MOST_PIXELS) return undefined;
  const read = Array.from({ length: segment[5]! }, (_, i) => {
    const [id, factors] = segment.subarray(6 + 3 * i);
    return { id: id!, across: factors! >> 4, down: factors! & 15 };
  });
  const [across, down] = [largest(read, "across"), largest(read, "down")];
  const components = read.map((each) => {
    const columns = Math.ceil(Math.ceil((width * each.across) / across) / 8);
    const rows = Math.ceil(Math.ceil((height * each.down) / down) / 8);
    return { ...each, columns, rows, given: new Uint8Array(progressive ? 64 * columns * rows : 0) };
  });
  const units = Math.ceil(width / (8 * across)) * Math.ceil(height / (8 * down));
  return { progressive, components, units };
}

function largest<K extends string>(of: readonly Readonly<Record<K, number>>[], key: K): number {
  return Math.max(...of.map((each) => each[key]));
}

function readTables(segment: Uint8Array, dc: HuffmanTable[], ac: HuffmanTable[]): void {
  for (let at = 0; at + 17 <= segment.length;) {
    const kind = segment[at]!;
    const counts = segment.subarray(at + 1, at + 17);
    const table = new Uint16Array(2 ** 16);
    let [code, symbol] = [0, at + 17];
    for (const [i, count] of counts.entries()) {
      const share = 2 ** (15 - i);
      for (let j = 0; j < count; j++, code += share) {
        table.fill((i + 1) * 256 + segment[symbol++]!, code, code + share);
      }
    }
    (kind >> 4 === 0 ? dc : ac)[kind & 15] = table;
    at = symbol;
  }
}

function scanOf(
  segment: Uint8Array,
  { components }: Frame,
  dc: readonly HuffmanTable[],
  ac: readonly HuffmanTable[],
): Scan | undefined {
  const count = segment[0]!;
  const parts: Scan["parts"][number][] = [];
  for (let i = 0; i < count; i++) {
    const [id, tables] = segment.subarray(1 + 2 * i);
    const component = components.find((each) => each.id === id);
    if (!component) return undefined;
    parts.push({ component, dc: dc[tables! >> 4] ?? none, ac: ac[tables! & 15] ?? none });
  }
  const [first, last, approximation] = segment.subarray(1 + 2 * count);
  return { parts, first: first!, last: last!, refines: approximation! >> 4 > 0 };
}

/** Where the next marker stands that is neither a stuffed byte nor a restart. */
function endOfScan(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1]!;
    if (next !== 0 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
  }
  return bytes.length;
}

function isDamagedScan(data: Uint8Array, scan: Scan, frame: Frame, restart: number): boolean {
  const [only, ...others] = scan.parts;
  const single = others.length === 0 ? only!.component : undefined;
  const units = single ? single.columns * single.rows : frame.units;
  const bits = new Bits(data);
  let run = 0;
  // Data that ends early is known to every decoder.
  for (let unit = 0; unit < units && bits.missing < PADDING; unit++) {
    if (restart > 0 && unit > 0 && unit % restart === 0) {
      if (!bits.restart()) return true;
      run = 0;
    }
    for (const part of scan.parts) {
      const { across, down } = part.component;
      for (let block = single ? 1 : across * down; block > 0; block--) {
        if (scan.refines) run = skipRefinement(bits, part, scan, 64 * unit, run);
        else if (run > 0) run--;
        else run = skipBlock(bits, part, scan, frame.progressive ? 64 * unit : undefined);
        if (run < 0) return true;
      }
    }
  }
  return bits.missing < PADDING && bits.left() > PADDING;
}

/**
 * Skips the codes of a block.
 *
 * @param block where the coefficients of the block stand in `given`, in progressive frames
 * @returns how many blocks after it have no codes, or −1 if the bits are no codes of a block
 */
function skipBlock(
  bits: Bits,
  { dc, ac, component }: Scan["parts"][number],
  { first, last }: Scan,
  block: number | undefined,
): number {
  let k = first;
  if (k === 0) {
    const size = bits.symbol(dc);
    if (size < 0 || size > 15) return -1;
    bits.skip(size);
    k = 1;
  }
  while (k <= last) {
    const symbol = bits.symbol(ac);
    if (symbol < 0) return -1;
    const [zeros, size] = [symbol >> 4, symbol & 15];
    if (size === 0 && zeros < 15) {
      if (block === undefined) return zeros === 0 ? 0 : -1;
      return 2 ** zeros + bits.take(zeros) - 1;
    }
    k += zeros + 1;
    if (k > last + 1) return -1;
    bits.skip(size);
    if (block !== undefined && size > 0) component.given[block + k - 1] = 1;
  }
  return 0;
}

/** Skips the bits that refine a block, one for each coefficient that is given; otherwise as `skipBlock`, with the run before. */
function skipRefinement(
  bits: Bits,
  { ac, component: { given } }: Scan["parts"][number],
  { first, last }: Scan,
  block: number,
  before: number,
): number {
  if (first === 0) bits.skip(1);
  if (first === 0) return 0;
  let run = before;
  let k = first;
  while (run === 0 && k <= last) {
    const symbol = bits.symbol(ac);
    if (symbol < 0) return -1;
    const size = symbol & 15;
    let zeros = symbol >> 4;
    if (size === 0 && zeros < 15) run = 2 ** zeros + bits.take(zeros);
    if (run > 0) break;
    bits.skip(size);
    for (; k <= last; k++) {
      if (given[block + k]) bits.skip(1);
      else if (zeros-- === 0) break;
    }
    if (k > last && size > 0) return -1;
    if (size > 0) given[block + k] = 1;
    k++;
  }
  if (run === 0) return 0;
  for (; k <= last; k++) if (given[block + k]) bits.skip(1);
  return run - 1;
}

/** The bits of a scan, without the zeros that are stuffed behind each byte of ones. Behind the end of the data there are zeros. */
class Bits {
  readonly #data: Uint8Array;
  /** Bytes that were asked for behind the end of the data, or of the interval between two restarts. */
  missing = 0;
  #at = 0;
  #buffer = 0;
  #count = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  /** The symbol of the next code, or −1 if the bits are none. */
  symbol(table: HuffmanTable): number {
    this.#fill(16);
    const found = table[(this.#buffer >>> (this.#count - 16)) & 0xffff]!;
    this.#count -= found >> 8;
    return found === 0 ? -1 : found & 255;
  }

  skip(count: number): void {
    this.#fill(count);
    this.#count -= count;
  }

  take(count: number): number {
    this.skip(count);
    return (this.#buffer >>> this.#count) & (2 ** count - 1);
  }

  /** Goes behind the next restart marker, which must be near. */
  restart(): boolean {
    const marker = this.#data.indexOf(0xff, this.#at);
    const isNear = marker >= 0 && marker - this.#at <= PADDING;
    const next = this.#data[marker + 1]!;
    this.#at = marker + 2;
    this.#count = 0;
    this.missing = 0;
    return isNear && next >= 0xd0 && next <= 0xd7;
  }

  /** Bytes that were not read. */
  left(): number {
    return this.#data.length - this.#at;
  }

  #fill(count: number): void {
    while (this.#count < count) {
      const byte = this.#data[this.#at] ?? 0;
      const next = this.#data[this.#at + 1];
      // At a marker the data of this interval ends.
      const ended = this.#at >= this.#data.length || (byte === 0xff && next !== 0);
      this.#buffer = (this.#buffer << 8) | (ended ? 0 : byte);
      this.#count += 8;
      if (ended) this.missing++;
      else this.#at += byte === 0xff ? 2 : 1;
    }
  }
}
