/**
 * The part of TensorBoard's protocol buffers that we write (tensorboard/compat/proto: event.proto, summary.proto). The
 * wire format itself is protobufjs'.
 */
import protobuf from "protobufjs/minimal.js";

/** What happened at a step of a training. */
export interface TrainingEventProto {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step: number;
  readonly what:
    | { readonly kind: "fileVersion"; readonly version: "brain.Event:2" }
    /** A training began, or goes on: what was told before of this step and later ones no longer holds. */
    | { readonly kind: "start" }
    | { readonly kind: "scalars"; readonly values: Readonly<Record<string, number>> }
    | { readonly kind: "image"; readonly tag: string; readonly image: ImageProto };
}

export interface ImageProto {
  readonly height: number;
  readonly width: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. */
  readonly colorspace: number;
  /** A PNG file. */
  readonly encoded: Uint8Array;
}

type Writer = protobuf.Writer;

const varint = 0;
const double = 1;
const bytes = 2;
const float = 5;
const tag = (field: number, type: number) => (field << 3) | type;

/** Serialises an Event. */
export function encodeEvent({ wallTime, step, what }: TrainingEventProto): Uint8Array {
  const writer = protobuf.Writer.create();
  writer.uint32(tag(1, double)).double(wallTime);
  writer.uint32(tag(2, varint)).int64(step);
  switch (what.kind) {
    case "fileVersion":
      writer.uint32(tag(3, bytes)).string(what.version);
      break;
    case "start":
      // SessionLog, with START as its status.
      message(writer, 7, () => writer.uint32(tag(1, varint)).int32(1));
      break;
    case "scalars":
      summary(writer, what.values, (value) => writer.uint32(tag(2, float)).float(value));
      break;
    case "image":
      summary(writer, { [what.tag]: what.image }, (image) =>
        message(writer, 4, () => {
          writer.uint32(tag(1, varint)).int32(image.height);
          writer.uint32(tag(2, varint)).int32(image.width);
          writer.uint32(tag(3, varint)).int32(image.colorspace);
          writer.uint32(tag(4, bytes)).bytes(image.encoded);
        }),
      );
      break;
  }
  return writer.finish();
}

function summary<T>(
  writer: Writer,
  values: Readonly<Record<string, T>>,
  write: (value: T) => void,
): void {
  message(writer, 5, () => {
    for (const [name, value] of Object.entries(values)) {
      message(writer, 1, () => {
        writer.uint32(tag(1, bytes)).string(name);
        write(value);
      });
    }
  });
}

function message(writer: Writer, field: number, write: () => void): void {
  writer.uint32(tag(field, bytes)).fork();
  write();
  writer.ldelim();
}
