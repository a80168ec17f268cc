/**
 * Writes the metrics of a training to its folder: as `metrics.jsonl` with a JSON object per line, and as event files for
 * TensorBoard (`events.out.tfevents.*`): the part of its protocol buffers that a training writes (tensorboard/compat/proto:
 * event.proto, summary.proto), framed as TFRecords.
 */
import { type FileHandle, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pngShape } from "../../pictures/png-node.ts";
import { FormatError } from "../../engine/errors.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { ifThere, system } from "../../weights/sources/system-error-node.ts";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

export interface Metrics {
  /**
   * Adds a line { step, time, …values }, with the time in seconds since 1970. NaN and infinity become null, as JSON requires.
   *
   * @throws PatchwiseError if writing fails, as do `image` and `close`
   */
  log(step: number, values: Readonly<Record<string, number>>): Promise<void>;
  /** Adds a PNG file to the images in TensorBoard. */
  image(step: number, tag: string, png: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

const linesFile = "metrics.jsonl";
const eventsPattern = /^events\.out\.tfevents\.(\d+)\./;

/**
 * Starts or continues the metrics in an existing folder. Lines of steps after `resumeFrom`, the step from which the training
 * resumes, are removed; for TensorBoard, a new event file invalidates those steps.
 *
 * @param options.resumeFrom 0 by default
 * @throws FormatError if an invalid line precedes lines that would be kept
 */
export async function openMetrics(
  directory: string,
  { resumeFrom = 0 }: { readonly resumeFrom?: number | undefined } = {},
): Promise<Metrics> {
  await cutLines(join(directory, linesFile), resumeFrom);
  const lines = await openAppended(join(directory, linesFile), "a");
  // If the second file cannot be opened, the first must not stay open.
  const events = await openEvents(directory).catch(async (error: unknown) => {
    await lines.handle.close();
    throw error;
  });
  const append = (step: number, what: TensorBoardEvent["what"]) =>
    events.append(tfRecord(encodeEvent({ wallTime: Date.now() / 1000, step, what })));
  // TensorBoard discards the events of earlier files from the step of START on, as when TensorFlow's own writer restarts.
  await append(0, { kind: "fileVersion", version: "brain.Event:2" });
  await append(resumeFrom + 1, { kind: "start" });
  return {
    async log(step, values) {
      const line = JSON.stringify({ step, time: Date.now() / 1000, ...values });
      await lines.append(`${line}\n`);
      await append(step, { kind: "scalars", values });
    },
    async image(step, tag, png) {
      const { width, height, channels } = pngShape(png, `the image ${tag}`);
      const image = { height, width, colorspace: channels, encoded: png };
      await append(step, { kind: "image", tag, image });
    },
    async close() {
      await Promise.all([lines.handle.close(), events.handle.close()]);
    },
  };
}

/** Removes the lines of steps after `last`, and an incomplete last line of a killed process. */
async function cutLines(path: string, last: number): Promise<void> {
  const text = await ifThere(`read ${path}`, readFile(path, "utf8"), "");
  const kept: string[] = [];
  let unread: number | undefined;
  for (const [i, line] of text.split("\n").slice(0, -1).entries()) {
    const step = stepOf(line);
    if (step === undefined) unread ??= i + 1;
    if (step === undefined || step > last) continue;
    if (unread !== undefined) {
      throw new FormatError(
        `Line ${unread} of ${path} is not a JSON object with a step; correct or remove it, then resume.`,
      );
    }
    kept.push(`${line}\n`);
  }
  const remaining = kept.join("");
  if (remaining !== text) await writeFileAtomic(path, new TextEncoder().encode(remaining));
}

function stepOf(line: string): number | undefined {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return typeof step === "number" ? step : undefined;
  } catch {
    return undefined;
  }
}

/** Opens a new event file. TensorBoard reads them in the order of their names, so its name must come after all others. */
async function openEvents(directory: string): Promise<Appended> {
  const begun = (await readdir(directory))
    .map((name) => eventsPattern.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number);
  const time = Math.max(Math.floor(Date.now() / 1000), ...begun.map((seconds) => seconds + 1));
  return openAppended(join(directory, `events.out.tfevents.${time}.patchwise`), "ax");
}

interface Appended {
  readonly handle: FileHandle;
  append(content: string | Uint8Array): Promise<void>;
}

async function openAppended(path: string, flags: "a" | "ax"): Promise<Appended> {
  const handle = await system(`write ${path}`, open(path, flags));
  return { handle, append: (content) => system(`write ${path}`, handle.appendFile(content)) };
}

/** Something that happened at a step of a training. */
interface TensorBoardEvent {
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

interface EventImage {
  readonly height: number;
  readonly width: number;
  /** 1 is grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha. */
  readonly colorspace: number;
  /** A PNG file. */
  readonly encoded: Uint8Array;
}

const { Varint: varint, Bit64: double, Bit32: float, LengthDelimited: bytes } = WireType;

/** Serializes an event as a message of type Event. */
function encodeEvent({ wallTime, step, what }: TensorBoardEvent): Uint8Array {
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
