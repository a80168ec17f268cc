/** The types of tensors that ggml has, by their number in a file; those that cannot be read are named in errors. */
import { blockFormats, type BlockFormat } from "../../engine/arrays/blocks.ts";
import { byteSize, type DType, sizeOf } from "../../engine/arrays/ndarray.ts";

export const tensorTypes: Readonly<Record<number, string>> = Object.assign(
  { 0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1" },
  { 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K" },
  { 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S" },
  { 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64" },
  { 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4" },
);

const plainTypes = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  F64: "float64",
  I32: "int32",
  I64: "int64",
} as const satisfies Readonly<Record<string, DType>>;

/** A type that can be read and written. */
export type GGUFType = keyof typeof plainTypes | BlockFormat;

/** The blocks of a type; undefined for types that are not in blocks. */
export function blockFormatOf(type: string): BlockFormat | undefined {
  return Object.hasOwn(blockFormats, type) ? (type as BlockFormat) : undefined;
}

/** The type of single numbers; undefined for blocks, and for types that cannot be read. */
export function plainTypeOf(type: string): DType | undefined {
  return Object.hasOwn(plainTypes, type) ? plainTypes[type as keyof typeof plainTypes] : undefined;
}

/** Bytes of a tensor in a type that can be read, whose rows are whole blocks. */
export function tensorBytes(type: GGUFType, shape: readonly number[]): number {
  const blocks = blockFormatOf(type);
  const count = sizeOf(shape);
  if (!blocks) return count * byteSize(plainTypeOf(type)!);
  return (count / blockFormats[blocks].numbers) * blockFormats[blocks].bytes;
}
