/**
 * Blocks of quantized numbers as ggml stores them (https://github.com/ggml-org/ggml): a scale in float16 for every 32 numbers, or
 * for every 256 with scales of 16 or 32 numbers inside (the K types). One row of `blockFormats` for each type.
 */
import { fromFloat16 } from "./convert.ts";

/** One type of blocks. */
interface BlockRule {
  /** Numbers of a block. */
  readonly numbers: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Writes the numbers of a block, whose bytes are given, into `target`. */
  decode(block: Uint8Array, target: Float32Array): void;
}

/** The 16 bits at a byte as a float16. */
function half(block: Uint8Array, at: number): number {
  return fromFloat16(block[at]! | (block[at + 1]! << 8));
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
    decode(block, target) {
      const [scale, least] = [half(block, 0), offset ? half(block, 2) : 0];
      for (let i = 0; i < 32; i++) {
        const byte = block[low + (i % 16)]!;
        const bit = fifth ? (block[high + (i >> 3)]! >> (i & 7)) & 1 : 0;
        const whole = (i < 16 ? byte & 15 : byte >> 4) | (bit << 4);
        target[i] = offset ? scale * whole + least : scale * (whole - middle);
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
    decode(block, target) {
      const [scale, least] = [half(block, 0), half(block, 2)];
      for (let group = 0; group < 8; group++) {
        const [own, offset] = sixBits(block, group);
        for (let i = 0; i < 32; i++) {
          const byte = block[low + 32 * (group >> 1) + i]!;
          const bit = fifth ? (block[16 + i]! >> group) & 1 : 0;
          const whole = (group % 2 === 0 ? byte & 15 : byte >> 4) | (bit << 4);
          target[32 * group + i] = scale * own * whole - least * offset;
        }
      }
    },
  };
}

/** Scale and smallest number of a group, from the 12 bytes behind the two of the block. */
function sixBits(block: Uint8Array, group: number): readonly [scale: number, least: number] {
  const at = (i: number) => block[4 + i]!;
  if (group < 4) return [at(group) & 63, at(group + 4) & 63];
  return [
    (at(group + 4) & 15) | ((at(group - 4) >> 6) << 4),
    (at(group + 4) >> 4) | ((at(group) >> 6) << 4),
  ];
}

const Q2_K: BlockRule = {
  numbers: 256,
  bytes: 84,
  decode(block, target) {
    const [scale, least] = [half(block, 80), half(block, 82)];
    for (let i = 0; i < 256; i++) {
      const own = block[i >> 4]!;
      const whole = (block[16 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
      target[i] = scale * (own & 15) * whole - least * (own >> 4);
    }
  },
};

const Q3_K: BlockRule = {
  numbers: 256,
  bytes: 110,
  decode(block, target) {
    const scale = half(block, 108);
    for (let i = 0; i < 256; i++) {
      const group = i >> 4;
      const low = (block[96 + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15;
      const own = (low | (((block[104 + (group & 3)]! >> (2 * (group >> 2))) & 3) << 4)) - 32;
      const whole = (block[32 + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
      const third = (block[i & 31]! >> (i >> 5)) & 1;
      target[i] = scale * own * (whole - (third ? 0 : 4));
    }
  },
};

const Q6_K: BlockRule = {
  numbers: 256,
  bytes: 210,
  decode(block, target) {
    const scale = half(block, 208);
    for (let i = 0; i < 256; i++) {
      const [side, quarter, place] = [i >> 7, (i >> 5) & 3, i & 31];
      const byte = block[64 * side + 32 * (quarter & 1) + place]!;
      const low = quarter < 2 ? byte & 15 : byte >> 4;
      const high = (block[128 + 32 * side + place]! >> (2 * quarter)) & 3;
      target[i] = scale * signed(block[192 + (i >> 4)]!) * ((low | (high << 4)) - 32);
    }
  },
};

const Q8_0: BlockRule = {
  numbers: 32,
  bytes: 34,
  decode(block, target) {
    const scale = half(block, 0);
    for (let i = 0; i < 32; i++) target[i] = scale * signed(block[2 + i]!);
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
  const values = new Float32Array(numbers);
  let skipped = first % numbers;
  for (let [at, done] = [0, 0]; done < target.length; at += size) {
    rule.decode(bytes.subarray(at, at + size), values);
    const part = values.subarray(skipped, skipped + target.length - done);
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
