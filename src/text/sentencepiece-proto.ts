/** Decodes the part of SentencePiece's protocol buffers (sentencepiece_model.proto) that tokenization needs. */
import { BinaryReader } from "@bufbuild/protobuf/wire";

export interface SentencePieceProto {
  readonly pieces: readonly PieceProto[];
  readonly modelType: number;
  readonly treatWhitespaceAsSuffix: boolean;
  readonly byteFallback: boolean;
  readonly precompiledCharsmap: Uint8Array;
  readonly addDummyPrefix: boolean;
  readonly removeExtraWhitespaces: boolean;
  readonly escapeWhitespaces: boolean;
}

export interface PieceProto {
  readonly piece: string;
  /** Logarithm of its probability. */
  readonly score: number;
  readonly type: number;
}

/** The tokenization algorithms. */
export const modelTypes = { unigram: 1, bpe: 2, word: 3, char: 4 } as const;
/** The types of pieces. Only normal and user-defined pieces are matched in text. */
export const pieceTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4 } as const;

/** Functions that read fields, by field number; other fields are skipped. */
type Fields = Readonly<Record<number, (reader: BinaryReader) => void>>;

/** @throws an error of @bufbuild/protobuf if the bytes are not such a message */
export function decodeSentencePiece(bytes: Uint8Array): SentencePieceProto {
  const pieces: PieceProto[] = [];
  const model: { -readonly [K in keyof SentencePieceProto]: SentencePieceProto[K] } = {
    pieces,
    modelType: modelTypes.unigram,
    treatWhitespaceAsSuffix: false,
    byteFallback: false,
    precompiledCharsmap: new Uint8Array(0),
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
  };
  message(new BinaryReader(bytes), bytes.length, {
    1: (reader) => pieces.push(pieceOf(reader)),
    // TrainerSpec
    2: nested({
      3: (reader) => (model.modelType = reader.int32()),
      24: (reader) => (model.treatWhitespaceAsSuffix = reader.bool()),
      35: (reader) => (model.byteFallback = reader.bool()),
    }),
    // NormalizerSpec
    3: nested({
      2: (reader) => (model.precompiledCharsmap = reader.bytes()),
      3: (reader) => (model.addDummyPrefix = reader.bool()),
      4: (reader) => (model.removeExtraWhitespaces = reader.bool()),
      5: (reader) => (model.escapeWhitespaces = reader.bool()),
    }),
  });
  return model;
}

function pieceOf(reader: BinaryReader): PieceProto {
  const found = { piece: "", score: 0, type: pieceTypes.normal as number };
  nested({
    1: () => (found.piece = reader.string()),
    2: () => (found.score = reader.float()),
    3: () => (found.type = reader.int32()),
  })(reader);
  return found;
}

function nested(fields: Fields): (reader: BinaryReader) => void {
  return (reader) => message(reader, reader.pos + reader.uint32(), fields);
}

function message(reader: BinaryReader, end: number, fields: Fields): void {
  while (reader.pos < end) {
    const [field, type] = reader.tag();
    const read = fields[field];
    if (read) read(reader);
    else reader.skip(type, field);
  }
}
