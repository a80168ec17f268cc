/**
 * Blocks of quantized numbers as ggml stores them (https://github.com/ggml-org/ggml): a scale in float16 for every 32 numbers, or
 * for every 256 with scales of 16 or 32 numbers inside (the K types and IQ4_XS). One row of `blockFormats` for each type.
 */
import { float16Table } from "./convert.ts";

/** One type of blocks. */
interface BlockRule {
  /** Numbers of a block. */
  readonly numbers: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Writes the numbers of the block that begins at byte `at` into `target` from index `to` on. */
  decode(bytes: Uint8Array, at: number, target: Float32Array, to: number): void;
}

const halves = float16Table();

/** The 16 bits at a byte as a float16. */
function half(bytes: Uint8Array, at: number): number {
  return halves[bytes[at]! | (bytes[at + 1]! << 8)]!;
}

const signed = (byte: number) => (byte << 24) >> 24;

/**
 * Blocks of 32 numbers of 4 or 5 bits: low nibbles are the first 16 numbers, high nibbles the others.
 *
 * @param fifth whether 4 bytes hold a fifth bit of each number
 * @param offset whether the block has a smallest number; without one, numbers are signed
 */
function nibbles(fifth: boolean, offset: boolean): BlockRule {
  const high = offset ? 4 : 2;
  const low = high + (fifth ? 4 : 0);
  const middle = fifth ? 16 : 8;
  return {
    numbers: 32,
    bytes: low + 16,
    decode(bytes, at, target, to) {
      const scale = half(bytes, at);
      const least = offset ? half(bytes, at + 2) : 0;
      for (let i = 0; i < 16; i++) {
        const byte = bytes[at + low + i]!;
        let [first, second] = [byte & 15, byte >> 4];
        if (fifth) {
          const place = at + high + (i >> 3);
          first |= ((bytes[place]! >> (i & 7)) & 1) << 4;
          second |= ((bytes[place + 2]! >> (i & 7)) & 1) << 4;
        }
        target[to + i] = offset ? scale * first + least : scale * (first - middle);
        target[to + 16 + i] = offset ? scale * second + least : scale * (second - middle);
      }
    },
  };
}

/** Q4_K and Q5_K: 8 groups of 32 numbers, whose scales and smallest numbers have 6 bits each. */
function groupsOf32(fifth: boolean): BlockRule {
  const low = 16 + (fifth ? 32 : 0);
  return {
    numbers: 256,
    bytes: low + 128,
    decode(bytes, at, target, to) {
      const [scale, least] = [half(bytes, at), half(bytes, at + 2)];
      for (let group = 0; group < 8; group++) {
        const [own, offset] = sixBits(bytes, at, group);
        const [step, bottom] = [scale * own, least * offset];
        const from = at + low + 32 * (group >> 1);
        const shift = group % 2 === 0 ? 0 : 4;
        for (let i = 0; i < 32; i++) {
          const bit = fifth ? (bytes[at + 16 + i]! >> group) & 1 : 0;
          const whole = ((bytes[from + i]! >> shift) & 15) | (bit << 4);
          target[to + 32 * group + i] = step * whole - bottom;
        }
      }
    },
  };
}

/** Scale and smallest number of a group, from the 12 bytes behind the two of the block. */
function sixBits(
  bytes: Uint8Array,
  block: number,
  group: number,
): readonly [scale: number, least: number] {
  const at = (i: number) => bytes[block + 4 + i]!;
  if (group < 4) return [at(group) & 63, at(group + 4) & 63];
  return [
    (at(group + 4) & 15) | ((at(group - 4) >> 6) << 4),
    (at(group + 4) >> 4) | ((at(group) >> 6) << 4),
  ];
}

const Q2_K: BlockRule = {
  numbers: 256,
  bytes: 84,
  decode(bytes, at, target, to) {
    const [scale, least] = [half(bytes, at + 80), half(bytes, at + 82)];
    for (let i = 0; i < 256; i++) {
      const own = bytes[at + (i >> 4)]!;
      const whole = (bytes[at + 16 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
      target[to + i] = scale * (own & 15) * whole - least * (own >> 4);
    }
  },
};

const Q3_K: BlockRule = {
  numbers: 256,
  bytes: 110,
  decode(bytes, at, target, to) {
    const scale = half(bytes, at + 108);
    for (let i = 0; i < 256; i++) {
      const group = i >> 4;
      const low = (bytes[at + 96 + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15;
      const own = (low | (((bytes[at + 104 + (group & 3)]! >> (2 * (group >> 2))) & 3) << 4)) - 32;
      const whole = (bytes[at + 32 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
      const third = (bytes[at + (i & 31)]! >> (i >> 5)) & 1;
      target[to + i] = scale * own * (whole - (third ? 0 : 4));
    }
  },
};

const Q6_K: BlockRule = {
  numbers: 256,
  bytes: 210,
  decode(bytes, at, target, to) {
    const scale = half(bytes, at + 208);
    for (let i = 0; i < 256; i++) {
      const [side, quarter, place] = [i >> 7, (i >> 5) & 3, i & 31];
      const byte = bytes[at + 64 * side + 32 * (quarter & 1) + place]!;
      const low = quarter < 2 ? byte & 15 : byte >> 4;
      const high = (bytes[at + 128 + 32 * side + place]! >> (2 * quarter)) & 3;
      target[to + i] = scale * signed(bytes[at + 192 + (i >> 4)]!) * ((low | (high << 4)) - 32);
    }
  },
};

const Q8_0: BlockRule = {
  numbers: 32,
  bytes: 34,
  decode(bytes, at, target, to) {
    const scale = half(bytes, at);
    for (let i = 0; i < 32; i++) target[to + i] = scale * signed(bytes[at + 2 + i]!);
  },
};

/** The 16 numbers that the four bits of IQ4_NL and IQ4_XS stand for. */
export const unevenNumbers: readonly number[] = [
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/** Writes the 32 numbers of 16 bytes, of which low nibbles are the first 16, times a scale. */
function decodeUneven(
  bytes: Uint8Array,
  at: number,
  scale: number,
  target: Float32Array,
  to: number,
) {
  for (let i = 0; i < 16; i++) {
    const byte = bytes[at + i]!;
    target[to + i] = scale * unevenNumbers[byte & 15]!;
    target[to + 16 + i] = scale * unevenNumbers[byte >> 4]!;
  }
}

const IQ4_NL: BlockRule = {
  numbers: 32,
  bytes: 18,
  decode: (bytes, at, target, to) => decodeUneven(bytes, at + 2, half(bytes, at), target, to),
};

/** 8 groups of 32 numbers, whose scales have 6 bits: the two high ones of all stand in 2 bytes, the low ones in 4 others. */
const IQ4_XS: BlockRule = {
  numbers: 256,
  bytes: 136,
  decode(bytes, at, target, to) {
    const scale = half(bytes, at);
    const high = bytes[at + 2]! | (bytes[at + 3]! << 8);
    for (let group = 0; group < 8; group++) {
      const low = (bytes[at + 4 + (group >> 1)]! >> (4 * (group & 1))) & 15;
      const own = (low | (((high >> (2 * group)) & 3) << 4)) - 32;
      decodeUneven(bytes, at + 8 + 16 * group, Math.fround(scale * own), target, to + 32 * group);
    }
  },
};

export const blockFormats = {
  Q4_0: nibbles(false, false),
  Q4_1: nibbles(false, true),
  Q5_0: nibbles(true, false),
  Q5_1: nibbles(true, true),
  Q8_0,
  Q2_K,
  Q3_K,
  Q4_K: groupsOf32(false),
  Q5_K: groupsOf32(true),
  Q6_K,
  IQ4_NL,
  IQ4_XS,
} satisfies Record<string, BlockRule>;

/** The name of a type of blocks. */
export type BlockFormat = keyof typeof blockFormats;

/**
 * Numbers `first` to `first + target.length` of a sequence of blocks.
 *
 * @param bytes the blocks, from the one that holds number `first` on; see `blockRange`
 */
export function decodeBlocks(
  format: BlockFormat,
  bytes: Uint8Array,
  first: number,
  target: Float32Array,
): void {
  const rule: BlockRule = blockFormats[format];
  const { numbers, bytes: size } = rule;
  // Of a block of which only a part is asked for.
  const whole = new Float32Array(numbers);
  let skipped = first % numbers;
  for (let [at, done] = [0, 0]; done < target.length; at += size) {
    if (skipped === 0 && done + numbers <= target.length) {
      rule.decode(bytes, at, target, done);
      done += numbers;
      continue;
    }
    rule.decode(bytes, at, whole, 0);
    const part = whole.subarray(skipped, skipped + target.length - done);
    target.set(part, done);
    done += part.length;
    skipped = 0;
  }
}

/** The bytes, from the start of a sequence of blocks, that hold `count` numbers from number `first` on. */
export function blockRange(format: BlockFormat, first: number, count: number) {
  const { numbers, bytes } = blockFormats[format];
  const start = Math.floor(first / numbers);
  const end = Math.ceil((first + count) / numbers);
  return { offset: start * bytes, length: (end - start) * bytes };
}
