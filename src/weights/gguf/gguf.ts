/**
 * GGUF, the files of ggml (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, names and shapes of tensors, then
 * the tensors, many of them quantized in blocks. Everything before the tensors is checked before any of them is read.
 */
import { blockFormats } from "../../engine/arrays/blocks.ts";
import { byteSize, sizeOf } from "../../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../../engine/errors.ts";
import { formatShape } from "../../engine/graph/shape.ts";
import type { TensorEntry } from "../safetensors/header.ts";
import { type Weights, weightsOf } from "../safetensors/safetensors.ts";
import { lookalike } from "../lookalikes.ts";
import type { ByteSource } from "../sources/source.ts";
import { EndOfBytes, GGUFReader, type MetadataValue } from "./reader.ts";
import { blockFormatOf, plainTypeOf, tensorBytes, type GGUFType, tensorTypes } from "./types.ts";

const MAGIC = 0x46_55_47_47; // "GGUF"
const VERSIONS = [2, 3];
/** The largest number of axes in ggml. */
const MAX_AXES = 4;
/** Metadata with a vocabulary takes a few megabytes. */
const FIRST_READ = 2 ** 20;

/**
 * Opens a GGUF file; only what stands before the tensors is read. Shapes are in PyTorch's order.
 *
 * @throws FormatError if the file is damaged, or of a version or with a type of tensors that is not known
 */
export async function openGGUF(source: ByteSource): Promise<Weights> {
  for (
    let length = Math.min(source.size, FIRST_READ);
    ;
    length = Math.min(source.size, 2 * length)
  ) {
    try {
      return parse(await source.read(0, length), source);
    } catch (error) {
      if (!(error instanceof EndOfBytes)) throw error;
      if (length < source.size) continue;
      throw new FormatError(
        `${source.name}: the file ends after ${source.size} bytes, within ${error.what}; download or copy it again.`,
      );
    }
  }
}

function parse(bytes: Uint8Array, source: ByteSource): Weights {
  const { name } = source;
  const reader = new GGUFReader(bytes, source);
  const magic = reader.uint32("its first bytes");
  if (magic !== MAGIC) {
    const other = lookalike(bytes);
    throw new FormatError(
      `${name}: this is not a GGUF file${other ? ` but ${other}` : ", which begins with the letters GGUF; download or copy it again"}.`,
    );
  }
  const version = reader.uint32("its version");
  if (!VERSIONS.includes(version)) {
    throw new FormatError(
      `${name} is a GGUF file of version ${version}, but only ${VERSIONS.join(" and ")} can be read; convert it again with a current program.`,
    );
  }
  const tensors = reader.count("the number of tensors", 24);
  const pairs = reader.count("the number of metadata", 13);
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < pairs; i++) {
    const key = reader.string("a metadata key");
    if (metadata.has(key)) {
      throw new FormatError(`${name}: the metadata has ${quote(key)} twice; make the file again.`);
    }
    metadata.set(key, reader.value(`the metadata ${quote(key)}`));
  }
  refusePart(metadata, name);
  const infos = Array.from({ length: tensors }, () => tensorInfo(reader, source));
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 8 || alignment % 8 !== 0) {
    throw new FormatError(
      `${name}: general.alignment is ${String(alignment)}, but must be a multiple of 8; make the file again.`,
    );
  }
  const start = Math.ceil(reader.position / alignment) * alignment;
  const entries = new Map<string, TensorEntry>();
  for (const info of infos) {
    if (entries.has(info.name)) {
      throw new FormatError(`${name}: there are two tensors ${quote(info.name)}; make it again.`);
    }
    entries.set(info.name, entryOf(info, start, metadata, source));
  }
  checkOverlaps([...entries.values()], source);
  const texts = [...metadata].map(([key, value]) => [key, textOf(value)] as const);
  return weightsOf(name, new Map(texts), entries, async () => source.close?.());
}

/** @throws FormatError for one file of several, as llama.cpp's gguf-split writes them */
function refusePart(metadata: ReadonlyMap<string, MetadataValue>, name: string): void {
  const count = metadata.get("split.count");
  if (typeof count !== "number" || count < 2) return;
  const part = metadata.get("split.no");
  throw new FormatError(
    `${name} is ${typeof part === "number" ? `part ${part + 1} of ${count}` : `one of ${count} parts`} of a model; join them with llama-gguf-split --merge, and give the whole file.`,
  );
}

interface TensorInfo {
  readonly name: string;
  readonly type: string;
  /** In PyTorch's order. */
  readonly shape: readonly number[];
  /** From the start of the tensors. */
  readonly offset: number;
}

function tensorInfo(reader: GGUFReader, { name: file }: ByteSource): TensorInfo {
  const name = reader.string("the name of a tensor");
  const what = `the description of the tensor ${quote(name)}`;
  const axes = reader.uint32(what);
  if (axes > MAX_AXES) {
    throw new FormatError(
      `${file}: the tensor ${quote(name)} has ${axes} axes, but GGUF allows ${MAX_AXES}; download or make it again.`,
    );
  }
  const shape = Array.from({ length: axes }, () => reader.uint64(what)).toReversed();
  const number = reader.uint32(what);
  const type = tensorTypes[number];
  if (type === undefined) {
    throw new FormatError(
      `${file}: the tensor ${quote(name)} has the type ${number}, which is not known; give a file in Q8_0, Q4_K or another common type.`,
    );
  }
  return { name, type, shape, offset: reader.uint64(what) };
}

function entryOf(
  { name, type, shape: stored, offset }: TensorInfo,
  start: number,
  metadata: ReadonlyMap<string, MetadataValue>,
  source: ByteSource,
): TensorEntry {
  const blocks = blockFormatOf(type);
  const dtype = blocks ? "float32" : plainTypeOf(type);
  if (dtype === undefined) {
    throw new FormatError(
      `${source.name}: the tensor ${quote(name)} has the type ${type}, which cannot be read; give a file in ${[...Object.keys(blockFormats), "F16", "BF16"].join(", ")}.`,
    );
  }
  const rule = blocks && blockFormats[blocks];
  if (rule && (stored.at(-1) ?? 1) % rule.numbers !== 0) {
    throw new FormatError(
      `${source.name}: the tensor ${quote(name)} is ${formatShape(stored)} in ${type}, whose blocks of ${rule.numbers} numbers do not divide its rows; make the file again.`,
    );
  }
  const length = tensorBytes(type as GGUFType, stored);
  const at = start + offset;
  if (!Number.isSafeInteger(at + length) || at + length > source.size) {
    throw new FormatError(
      `${source.name}: the tensor ${quote(name)} should end at byte ${at + length}, but the file has ${source.size}: a block is cut off; download or copy it again.`,
    );
  }
  return {
    name,
    tag: type,
    dtype,
    ...(blocks && { blocks: { format: blocks, first: 0 } }),
    shape: trueShape(name, stored, metadata, source),
    source,
    offset: at,
    length,
    aligned: at % byteSize(dtype) === 0,
  };
}

/** The shape of a tensor that was reshaped for its blocks, as ComfyUI-GGUF notes it in the metadata. */
function trueShape(
  name: string,
  stored: readonly number[],
  metadata: ReadonlyMap<string, MetadataValue>,
  source: ByteSource,
): readonly number[] {
  const key = `comfy.gguf.orig_shape.${name}`;
  const noted = metadata.get(key);
  if (noted === undefined) return stored;
  if (Array.isArray(noted) && noted.every((side) => typeof side === "number")) {
    const shape = noted as readonly number[];
    if (sizeOf(shape) === sizeOf(stored)) return shape;
  }
  throw new FormatError(
    `${source.name}: ${quote(key)} is ${textOf(noted)}, which does not fit the ${sizeOf(stored)} numbers of the tensor; make the file again.`,
  );
}

function checkOverlaps(entries: readonly TensorEntry[], { name }: ByteSource): void {
  const sorted = entries.toSorted((a, b) => a.offset - b.offset || a.length - b.length);
  for (const [i, entry] of sorted.entries()) {
    const before = sorted[i - 1];
    if (!before || before.offset + before.length <= entry.offset) continue;
    throw new FormatError(
      `${name}: the tensors ${quote(before.name)} and ${quote(entry.name)} overlap; download or make the file again.`,
    );
  }
}

/** A metadata value as text: lists as JSON, whole numbers of 64 bits exactly. */
function textOf(value: MetadataValue): string {
  if (!Array.isArray(value)) return String(value);
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === "bigint" ? each.toString() : each,
  );
}
