/**
 * TFRecord, the framing of TensorBoard's event files: length as uint64, its checksum, the data, their checksum, all
 * little-endian.
 */
import { crc32c } from "./crc32c.ts";

/** The data of one record, framed. */
export function tfRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(data.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedChecksum(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedChecksum(data), true);
  return record;
}

/** Masked, because the checksum of data that hold checksums themselves would be a weak one. */
function maskedChecksum(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
