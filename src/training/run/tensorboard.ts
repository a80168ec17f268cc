/**
 * Records of TensorBoard's event files: the part of its protocol buffers that a training writes (tensorboard/compat/proto:
 * event.proto, summary.proto), framed as TFRecords. The wire format comes from @bufbuild/protobuf.
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** Something that happened at a step of a training. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step: number;
  readonly what:
    | { readonly kind: "fileVersion"; readonly version: "brain.Event:2" }
    /** A training started or resumed: earlier events of this step and later ones no longer hold. */
    | { readonly kind: "start" }
    | { readonly kind: "scalars"; readonly values: Readonly<Record<string, number>> }
    | { readonly kind: "image"; readonly tag: string; readonly image: EventImage };
}

export interface EventImage {
  readonly height: number;
  readonly width: number;
  /** 1 is grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha. */
  readonly colorspace: number;
  /** A PNG file. */
  readonly encoded: Uint8Array;
}

const { Varint: varint, Bit64: double, Bit32: float, LengthDelimited: bytes } = WireType;

/** Serializes an event as a message of type Event. */
export function encodeEvent({ wallTime, step, what }: TensorBoardEvent): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, double).double(wallTime);
  writer.tag(2, varint).int64(step);
  switch (what.kind) {
    case "fileVersion":
      writer.tag(3, bytes).string(what.version);
      break;
    case "start":
      // A SessionLog whose status is START.
      message(writer, 7, () => writer.tag(1, varint).int32(1));
      break;
    case "scalars":
      summary(writer, what.values, (value) => writer.tag(2, float).float(value));
      break;
    case "image":
      summary(writer, { [what.tag]: what.image }, (image) =>
        message(writer, 4, () => {
          writer.tag(1, varint).int32(image.height);
          writer.tag(2, varint).int32(image.width);
          writer.tag(3, varint).int32(image.colorspace);
          writer.tag(4, bytes).bytes(image.encoded);
        }),
      );
      break;
  }
  return writer.finish();
}

function summary<T>(
  writer: BinaryWriter,
  values: Readonly<Record<string, T>>,
  write: (value: T) => void,
): void {
  message(writer, 5, () => {
    for (const [name, value] of Object.entries(values)) {
      message(writer, 1, () => {
        writer.tag(1, bytes).string(name);
        write(value);
      });
    }
  });
}

function message(writer: BinaryWriter, field: number, write: () => void): void {
  writer.tag(field, bytes).fork();
  write();
  writer.join();
}

/** Frames data as a TFRecord: the length as uint64, its checksum, the data, their checksum, all little-endian. */
export function tfRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(data.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedChecksum(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedChecksum(data), true);
  return record;
}

/** TFRecord masks its checksums, because a CRC of data that contain their own CRC is weak. */
function maskedChecksum(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** The CRC of each byte, least significant bit first. */
const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = (remainder >>> 1) ^ (remainder & 1 ? 0x82f63b78 : 0);
  }
  return remainder;
});

/** CRC-32C, with Castagnoli's polynomial (RFC 3720, appendix B.4); from 0 to 2^32 − 1. */
export function crc32c(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) crc = (crc >>> 8) ^ crcTable[(crc ^ byte) & 0xff]!;
  return ~crc >>> 0;
}
