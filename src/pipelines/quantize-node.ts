/**
 * Writes the network of a model with quantized weights, under the names of its original repository: as GGUF in blocks, or as
 * safetensors in integers with a scale for each row.
 */
import { realpath } from "node:fs/promises";
import { blockFormats, decodeBlocks } from "../engine/arrays/blocks.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { weightFiles } from "../engine/runtime/stored-weight.ts";
import { quantizeBlocks, type QuantizedFormat } from "../engine/arrays/quantize.ts";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { familyOf } from "../models/families.ts";
import type { NetworkConfig } from "../models/network.ts";
import { ggufChunks, type GGUFTensor } from "../weights/gguf/write.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import type { TensorEntry } from "../weights/safetensors/header.ts";
import type { ByteSource } from "../weights/sources/source.ts";
import { weightsOf } from "../weights/safetensors/safetensors.ts";
import { type ImageModel, tracedForDrawing } from "./image-model.ts";
import { publishedModel } from "./open/published-checkpoint.ts";
import { integerTensors } from "./quantize-rows-node.ts";
import { changeMeter, type NamedWeight, rowsOfWeight } from "./weight-rows-node.ts";
import { safetensorsStream } from "../weights/safetensors/write.ts";

/** The types of weights that `quantizeModel` writes: blocks of GGUF, or integers with a scale for each row. */
export type QuantizedType = QuantizedFormat | "int8";

/** The result for one weight. */
export interface QuantizedLayer {
  readonly name: string;
  /** The type in which it is stored. */
  readonly type: QuantizedType | "F32";
  /** Bytes of it, with its scales. */
  readonly bytes: number;
  /** The root of the mean square of what its numbers changed, divided by that of the numbers. */
  readonly error: number;
}

/**
 * Quantizes the matrices of a network; vectors, convolutions and matrices whose rows are no whole blocks stay in float32, but for rows
 * of whole blocks of Q8_0, which take that type. "int8" writes safetensors as ComfyUI has them (`int8_tensorwise`), rotated by groups of
 * 256 where rows are whole groups; other types write GGUF.
 *
 * @param onLayer called with each layer once it is written
 * @throws UsageError if files of the model's family cannot be opened by themselves; PatchwiseError if writing fails, or a weight holds
 *   a number that is not finite; no half-written file is left
 */
export async function quantizeModel(
  model: ImageModel,
  type: QuantizedType,
  path: string,
  onLayer: (layer: QuantizedLayer) => void,
): Promise<void> {
  const { declared } = tracedForDrawing(model.network).params;
  const all = [...declared].map(([name, { tensor }]) => ({
    name,
    shape: tensor.shape as readonly number[],
    stored: model.weights(name)!,
  }));
  checkFamily(model, all);
  await refuseOwnFile(path, all);
  if (type === "int8") {
    return writeFileAtomic(path, safetensorsStream(integerTensors(all, onLayer)));
  }
  const { kind, original } = familyOf(model.network);
  const architecture = original?.architecture ?? kind;
  const metadata = { "general.architecture": architecture, "general.name": model.name };
  const tensors = all.map((weight) => blockTensor(weight, type, onLayer));
  await writeFileAtomic(path, ggufChunks(metadata, tensors));
}

/** @throws UsageError if the path is a file that holds these weights, which would be lost */
async function refuseOwnFile(path: string, all: readonly NamedWeight[]): Promise<void> {
  const real = await realpath(path).catch(() => undefined);
  const read = new Set(all.flatMap(({ stored }) => weightFiles(stored)));
  for (const file of read) {
    if (real === undefined || (await realpath(file)) !== real) continue;
    throw new UsageError(
      `${path} is a file of the model itself, whose weights would be lost; write to another name.`,
    );
  }
}

function blockTensor(
  weight: NamedWeight,
  format: QuantizedFormat,
  onLayer: (layer: QuantizedLayer) => void,
): GGUFTensor {
  const { name, shape } = weight;
  const type = typeOf(format, shape);
  return { name, type, shape, bytes: () => blocksOf(weight, type, onLayer) };
}

function typeOf(format: QuantizedFormat, shape: readonly number[]): QuantizedFormat | "F32" {
  const fits = (type: QuantizedFormat) => shape[1]! % blockFormats[type].numbers === 0;
  if (shape.length !== 2) return "F32";
  return fits(format) ? format : fits("Q8_0") ? "Q8_0" : "F32";
}

/** @throws UsageError if the file could not be opened again, since its keys and shapes do not show the model */
function checkFamily({ name, network }: ImageModel, all: readonly NamedWeight[]): void {
  const shown = shownBy(name, all);
  // Sizes and texts are as long as a drawing asks for.
  const fields = (config: NetworkConfig) =>
    JSON.stringify(
      Object.entries(config)
        .filter(([field]) => field !== "size" && field !== "condition")
        .toSorted(([a], [b]) => (a < b ? -1 : 1)),
    );
  if (shown && fields(shown) === fields(network)) return;
  throw new UsageError(
    `${name} is a ${familyOf(network).title} whose config no file of weights alone shows, so that it could not be opened again; quantize a model that is published as a single file, such as a FLUX, Z-Image, MiniT2I, Stable Diffusion 3 or DiT.`,
  );
}

/** The network that a file with these weights alone would be opened as; undefined if none. */
function shownBy(name: string, all: readonly NamedWeight[]): NetworkConfig | undefined {
  const entries = all.map(({ name: key, shape }): [string, TensorEntry] => {
    const source = undefined as unknown as ByteSource;
    const place = { source, offset: 0, length: 4 * sizeOf(shape), aligned: true };
    return [key, { name: key, tag: "F32", dtype: "float32", shape, ...place }];
  });
  try {
    return publishedModel(weightsOf(name, new Map(), new Map(entries), async () => {})).network;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The bytes of a weight, some rows at a time. */
async function* blocksOf(
  weight: NamedWeight,
  type: QuantizedFormat | "F32",
  onLayer: (layer: QuantizedLayer) => void,
): AsyncGenerator<Uint8Array> {
  const change = changeMeter();
  let bytes = 0;
  for await (const { values } of rowsOfWeight(weight)) {
    const piece =
      type === "F32"
        ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
        : quantizeBlocks(type, values);
    if (type !== "F32") {
      const after = new Float32Array(values.length);
      decodeBlocks(type, piece, 0, after);
      const lost = after.findIndex((value) => !Number.isFinite(value));
      if (lost >= 0) {
        const most = values.reduce((sofar, value) => Math.max(sofar, Math.abs(value)), 0);
        throw new PatchwiseError(
          `${weight.name} holds numbers up to ${most.toPrecision(3)}, beyond the float16 scales of ${type}; give --type int8, whose scales are in float32.`,
        );
      }
      change.add(values, after);
    }
    bytes += piece.length;
    yield piece;
  }
  onLayer({ name: weight.name, type, bytes, error: change.share() });
}
