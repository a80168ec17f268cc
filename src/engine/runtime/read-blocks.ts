/** Reads weights that are stored in blocks of quantized numbers. */
import { blockRange, decodeBlocks } from "../arrays/blocks.ts";
import { sizeOf, viewOf } from "../arrays/ndarray.ts";
import type { BlocksWeight, ReadFile } from "./weight-forms.ts";

/** Numbers that are decoded or quantized at a time. */
const DECODED = 2 ** 20;

/** Writes the numbers of blocks, float32, into `target`. */
export async function readBlocks(
  { format, first, path, bytes, fetch: fetchRange, offset, shape }: BlocksWeight,
  target: Uint8Array,
  readFile: ReadFile,
): Promise<void> {
  const values = viewOf("float32", target.buffer as ArrayBuffer, target.byteOffset, sizeOf(shape));
  for (let done = 0; done < values.length; done += DECODED) {
    const part = values.subarray(done, done + DECODED);
    const range = blockRange(format, first + done, part.length);
    const from = offset + range.offset;
    let blocks = bytes?.subarray(from, from + range.length);
    if (fetchRange) blocks = await fetchRange(from, range.length);
    if (!blocks) {
      blocks = new Uint8Array(range.length);
      await readFile(blocks, path!, from);
    }
    decodeBlocks(format, blocks, first + done, part);
  }
}
