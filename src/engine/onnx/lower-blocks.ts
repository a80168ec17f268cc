/**
 * Blocks of quantized numbers (arrays/blocks.ts) as a part of an ONNX graph: a weight stays as it lies in its file, and each run
 * computes its numbers from the bytes. One row of `rules` for each type of blocks.
 */
import { type BlockFormat, blockFormats, unevenNumbers } from "../arrays/blocks.ts";
import { type DType, ndarray } from "../arrays/ndarray.ts";
import type { Emitter } from "./emitter.ts";
import { dataTypes } from "./proto.ts";

/** The blocks of a weight, one row each, as different views of the same bytes. */
interface BlockViews {
  readonly emitter: Emitter;
  /** Bytes from `start` to `end` of each block as values of a type, [count, (end − start) / size]. */
  readonly part: (dtype: "uint8" | "int8" | "float16", start: number, end: number) => string;
}

/** Returns the numbers [count, numbers of a block], float32. */
type BlockRule = (views: BlockViews) => string;

/** The parts of a rule. */
function ops({ emitter, part }: BlockViews) {
  const bytes = (values: readonly number[]) =>
    emitter.constant(ndarray("uint8", [values.length], values));
  const at = (values: readonly number[], shape: readonly number[]) =>
    emitter.constant(ndarray("uint8", shape, values));
  return {
    part,
    shaped: (x: string, ...shape: readonly number[]) =>
      emitter.emit("Reshape", [x, emitter.ints([-1, ...shape])]),
    joined: (parts: readonly string[], axis: number) => emitter.emit("Concat", parts, { axis }),
    float: (x: string) => emitter.emit("Cast", [x], { to: dataTypes.float32 }),
    /** The float16 at a byte, [count, 1] float32. */
    half: (start: number) =>
      emitter.emit("Cast", [part("float16", start, start + 2)], { to: dataTypes.float32 }),
    mul: (a: string, b: string) => emitter.emit("Mul", [a, b]),
    add: (a: string, b: string) => emitter.emit("Add", [a, b]),
    sub: (a: string, b: string) => emitter.emit("Sub", [a, b]),
    scalar: (value: number) => emitter.scalar(value, "float32"),
    and: (x: string, mask: number) => emitter.emit("BitwiseAnd", [x, bytes([mask])]),
    or: (a: string, b: string) => emitter.emit("BitwiseOr", [a, b]),
    right: (x: string, by: number) =>
      emitter.emit("BitShift", [x, bytes([by])], { direction: "RIGHT" }),
    left: (x: string, by: number) =>
      emitter.emit("BitShift", [x, bytes([by])], { direction: "LEFT" }),
    /** Shifts by one number after another along an axis of the shape [1, …]. */
    rightEach: (x: string, by: readonly number[], shape: readonly number[]) =>
      emitter.emit("BitShift", [x, at(by, shape)], { direction: "RIGHT" }),
  };
}

const counting = (count: number, step = 1) => Array.from({ length: count }, (_, i) => step * i);

/** See `nibbles` in arrays/blocks.ts. */
function nibbles(fifth: boolean, offset: boolean): BlockRule {
  const high = offset ? 4 : 2;
  const low = high + (fifth ? 4 : 0);
  return (views) => {
    const o = ops(views);
    const four = o.part("uint8", low, low + 16);
    let whole = o.joined([o.and(four, 15), o.right(four, 4)], 1);
    if (fifth) {
      const bits = o.shaped(o.part("uint8", high, high + 4), 4, 1);
      const each = o.and(o.rightEach(bits, counting(8), [1, 1, 8]), 1);
      whole = o.or(whole, o.left(o.shaped(each, 32), 4));
    }
    const numbers = o.float(whole);
    if (offset) return o.add(o.mul(numbers, o.half(0)), o.half(2));
    return o.mul(o.sub(numbers, o.scalar(fifth ? 16 : 8)), o.half(0));
  };
}

/** See `groupsOf32` in arrays/blocks.ts. */
function groupsOf32(fifth: boolean): BlockRule {
  const low = 16 + (fifth ? 32 : 0);
  return (views) => {
    const o = ops(views);
    const [a, b, c] = [4, 8, 12].map((start) => o.part("uint8", start, start + 4)) as [
      string,
      string,
      string,
    ];
    const six = (first: string, second: string) =>
      o.shaped(
        o.float(o.joined([o.and(first, 63), o.or(second, o.left(o.right(first, 6), 4))], 1)),
        8,
        1,
      );
    const scale = o.mul(six(a, o.and(c, 15)), o.shaped(o.half(0), 1, 1));
    const least = o.mul(six(b, o.right(c, 4)), o.shaped(o.half(2), 1, 1));
    const four = o.shaped(o.part("uint8", low, low + 128), 4, 1, 32);
    let whole = o.shaped(o.joined([o.and(four, 15), o.right(four, 4)], 2), 8, 32);
    if (fifth) {
      const bits = o.shaped(o.part("uint8", 16, 48), 1, 32);
      whole = o.or(whole, o.left(o.and(o.rightEach(bits, counting(8), [1, 8, 1]), 1), 4));
    }
    return o.sub(o.mul(o.float(whole), scale), least);
  };
}

/** Two bits of each number: 64 bytes, of which 32 hold those of 4·32 numbers, [count, 2, 4, 32] uint8. */
function pairsOfBits({ part, shaped, rightEach, and }: ReturnType<typeof ops>, start: number) {
  const bytes = shaped(part("uint8", start, start + 64), 2, 1, 32);
  return and(rightEach(bytes, counting(4, 2), [1, 1, 4, 1]), 3);
}

/** The numbers that nibbles 0 to 15 stand for in IQ4_NL and IQ4_XS, in the shape of `bits`. */
function unevenOf({ emitter }: BlockViews, bits: string): string {
  const table = emitter.constant(ndarray("float32", [unevenNumbers.length], unevenNumbers));
  const index = emitter.emit("Cast", [bits], { to: dataTypes.int32 });
  return emitter.emit("Gather", [table, index], { axis: 0 });
}

const rules = {
  Q4_0: nibbles(false, false),
  Q4_1: nibbles(false, true),
  Q5_0: nibbles(true, false),
  Q5_1: nibbles(true, true),
  Q8_0(views) {
    const o = ops(views);
    return o.mul(o.float(o.part("int8", 2, 34)), o.half(0));
  },
  Q2_K(views) {
    const o = ops(views);
    const own = o.part("uint8", 0, 16);
    const column = (x: string) => o.shaped(o.mul(o.float(x), o.half(80)), 16, 1);
    const least = o.shaped(o.mul(o.float(o.right(own, 4)), o.half(82)), 16, 1);
    const numbers = o.float(o.shaped(pairsOfBits(o, 16), 16, 16));
    return o.sub(o.mul(numbers, column(o.and(own, 15))), least);
  },
  Q3_K(views) {
    const o = ops(views);
    const low = o.part("uint8", 96, 104);
    const high = o.rightEach(o.shaped(o.part("uint8", 104, 108), 1, 4), counting(4, 2), [1, 4, 1]);
    const six = o.or(
      o.joined([o.and(low, 15), o.right(low, 4)], 1),
      o.left(o.shaped(o.and(high, 3), 16), 4),
    );
    const scale = o.mul(o.sub(o.float(six), o.scalar(32)), o.half(108));
    const third = o.and(
      o.rightEach(o.shaped(o.part("uint8", 0, 32), 1, 32), counting(8), [1, 8, 1]),
      1,
    );
    const whole = o.or(o.shaped(pairsOfBits(o, 32), 8, 32), o.left(third, 2));
    const numbers = o.sub(o.float(o.shaped(whole, 16, 16)), o.scalar(4));
    return o.mul(numbers, o.shaped(scale, 16, 1));
  },
  Q4_K: groupsOf32(false),
  Q5_K: groupsOf32(true),
  Q6_K(views) {
    const o = ops(views);
    const four = o.shaped(o.part("uint8", 0, 128), 2, 1, 64);
    const low = o.shaped(o.joined([o.and(four, 15), o.right(four, 4)], 2), 2, 4, 32);
    const whole = o.or(low, o.left(pairsOfBits(o, 128), 4));
    const scale = o.mul(o.float(o.part("int8", 192, 208)), o.half(208));
    const numbers = o.sub(o.float(o.shaped(whole, 16, 16)), o.scalar(32));
    return o.mul(numbers, o.shaped(scale, 16, 1));
  },
  IQ4_NL(views) {
    const o = ops(views);
    const four = o.part("uint8", 2, 18);
    return o.mul(unevenOf(views, o.joined([o.and(four, 15), o.right(four, 4)], 1)), o.half(0));
  },
  IQ4_XS(views) {
    const o = ops(views);
    const low = o.rightEach(o.shaped(o.part("uint8", 4, 8), 4, 1), [0, 4], [1, 1, 2]);
    const high = o.rightEach(o.shaped(o.part("uint8", 2, 4), 2, 1), counting(4, 2), [1, 1, 4]);
    const six = o.or(o.shaped(o.and(low, 15), 8), o.left(o.shaped(o.and(high, 3), 8), 4));
    const scale = o.mul(o.sub(o.float(six), o.scalar(32)), o.half(0)); // [count, 8]
    const four = o.shaped(o.part("uint8", 8, 136), 8, 16);
    const whole = o.joined([o.and(four, 15), o.right(four, 4)], 2); // [count, 8, 32]
    return o.mul(unevenOf(views, whole), o.shaped(scale, 8, 1));
  },
} as const satisfies { readonly [F in BlockFormat]: BlockRule };

/**
 * Adds the numbers of blocks to a graph, [blocks, numbers of a block] float32.
 *
 * @param view adds the blocks as a matrix of a type, [blocks, columns], that shares their bytes
 */
export function lowerBlocks(
  emitter: Emitter,
  format: BlockFormat,
  view: (dtype: DType, columns: number) => string,
): string {
  const { bytes } = blockFormats[format];
  const part: BlockViews["part"] = (dtype, start, end) => {
    const size = dtype === "float16" ? 2 : 1;
    const [first, last, one] = [start / size, end / size, 1].map((value) => emitter.ints([value]));
    return emitter.emit("Slice", [view(dtype, bytes / size), first!, last!, one!, one!]);
  };
  return rules[format]({ emitter, part });
}
