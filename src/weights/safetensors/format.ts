/**
 * The safetensors format: the length of the header in 8 bytes (u64, little endian), a JSON header, and the
 * bytes of the tensors, which the header's `data_offsets` must cover without gap or overlap.
 * https://github.com/huggingface/safetensors#format
 */
import type { DType } from "../../engine/arrays/ndarray.ts";

/**
 * The limit of the reference implementation. Headers take about 100 bytes per tensor, so it allows a million
 * tensors, and a random length is rejected before any memory is allocated for it.
 */
export const MAX_HEADER_BYTES = 100_000_000;

/** The limit of NumPy and PyTorch. */
export const MAX_RANK = 64;

export const METADATA_KEY = "__metadata__";

interface TagInfo {
  /** Bits per element. */
  readonly bits: number;
  /** The dtype of this library; null if there is none, so that the tensor can be listed but not read. */
  readonly dtype: DType | null;
}

/** All element types of the format, in the reference implementation's order of alignment. */
export const tags: ReadonlyMap<string, TagInfo> = new Map<string, TagInfo>([
  ["BOOL", { bits: 8, dtype: "bool" }],
  ["F4", { bits: 4, dtype: null }],
  ["F6_E2M3", { bits: 6, dtype: null }],
  ["F6_E3M2", { bits: 6, dtype: null }],
  ["U8", { bits: 8, dtype: "uint8" }],
  ["I8", { bits: 8, dtype: "int8" }],
  ["F8_E5M2", { bits: 8, dtype: "float8_e5m2" }],
  ["F8_E4M3", { bits: 8, dtype: "float8_e4m3fn" }],
  ["F8_E8M0", { bits: 8, dtype: null }],
  ["F8_E4M3FNUZ", { bits: 8, dtype: null }],
  ["F8_E5M2FNUZ", { bits: 8, dtype: null }],
  ["I16", { bits: 16, dtype: null }],
  ["U16", { bits: 16, dtype: null }],
  ["F16", { bits: 16, dtype: "float16" }],
  ["BF16", { bits: 16, dtype: "bfloat16" }],
  ["I32", { bits: 32, dtype: "int32" }],
  ["U32", { bits: 32, dtype: null }],
  ["F32", { bits: 32, dtype: "float32" }],
  ["C64", { bits: 64, dtype: null }],
  ["F64", { bits: 64, dtype: "float64" }],
  ["I64", { bits: 64, dtype: "int64" }],
  ["U64", { bits: 64, dtype: null }],
]);
