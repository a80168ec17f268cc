/** Damage to PNG files that their checksums do not give away. */
import { crc32 } from "node:zlib";
import { below, bytes, type Mutation } from "./mutations.ts";

/** Damages the data of one chunk of a PNG file and gives it the right checksum. */
export const pngChunk: Mutation = (random, input, other) => {
  const copy = input.slice();
  const view = new DataView(copy.buffer);
  const starts: number[] = [];
  for (let at = 8; at + 12 <= copy.length; at += 12 + view.getUint32(at)) starts.push(at);
  const at = starts[below(random, starts.length)];
  const length = at === undefined ? 0 : view.getUint32(at);
  if (input[0] !== 0x89 || at === undefined || at + 12 + length > copy.length || length === 0) {
    return bytes(random, input, other);
  }
  const place = at + 8 + below(random, length);
  copy[place] = random() < 0.5 ? copy[place]! ^ (1 << below(random, 8)) : below(random, 256);
  view.setUint32(at + 8 + length, crc32(copy.subarray(at + 4, at + 8 + length)));
  return copy;
};
