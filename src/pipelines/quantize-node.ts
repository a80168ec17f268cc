/** Writes the network of a model as a GGUF file with quantized weights, under the names of its original repository. */
import { blockFormats, decodeBlocks } from "../engine/arrays/blocks.ts";
import { castArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { quantizeBlocks, type QuantizedFormat } from "../engine/arrays/quantize.ts";
import { FormatError, PatchwiseError, UsageError } from "../engine/errors.ts";
import { sliceRows, type StoredWeight } from "../engine/runtime/stored-weight.ts";
import { familyOf } from "../models/families.ts";
import type { NetworkConfig } from "../models/network.ts";
import { ggufChunks, type GGUFTensor } from "../weights/gguf/write.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { readStored } from "../weights/stored-node.ts";
import type { TensorEntry } from "../weights/safetensors/header.ts";
import type { ByteSource } from "../weights/sources/source.ts";
import { weightsOf } from "../weights/safetensors/safetensors.ts";
import { type ImageModel, tracedForDrawing } from "./image-model.ts";
import { publishedModel } from "./open/published-checkpoint.ts";

/** What became of a weight. */
export interface QuantizedLayer {
  readonly name: string;
  /** The type in which it is stored. */
  readonly type: QuantizedFormat | "F32";
  /** Bytes of it. */
  readonly bytes: number;
  /** The root of the mean square of what its numbers changed, divided by that of the numbers. */
  readonly error: number;
}

/** Numbers that are read and quantized at a time. */
const PIECE = 2 ** 22;

/**
 * Quantizes the matrices of a network; vectors, convolutions and matrices whose rows are no whole blocks stay in float32, but for rows
 * of whole blocks of Q8_0, which take that type.
 *
 * @param onLayer is told each layer once it is written
 * @throws UsageError if files of the model's family cannot be opened by themselves; PatchwiseError if writing fails, or a weight holds
 *   a number that is not finite; no half-written file is left
 */
export async function quantizeModel(
  model: ImageModel,
  format: QuantizedFormat,
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
  const tensors = all.map(({ name, shape, stored }): GGUFTensor => {
    const type = typeOf(format, shape);
    return { name, type, shape, bytes: () => pieces(name, shape, stored, type, onLayer) };
  });
  const metadata = { "general.architecture": model.network.kind, "general.name": model.name };
  await writeFileAtomic(path, ggufChunks(metadata, tensors));
}

function typeOf(format: QuantizedFormat, shape: readonly number[]): QuantizedFormat | "F32" {
  const fits = (type: QuantizedFormat) => shape[1]! % blockFormats[type].numbers === 0;
  if (shape.length !== 2) return "F32";
  return fits(format) ? format : fits("Q8_0") ? "Q8_0" : "F32";
}

interface NamedWeight {
  readonly name: string;
  readonly shape: readonly number[];
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
    `${name} is a ${familyOf(network).title} whose config no GGUF file shows, so that it could not be opened again; quantize a model that is published as a single file, such as a FLUX, Z-Image, MiniT2I, Stable Diffusion 3 or DiT.`,
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
async function* pieces(
  name: string,
  shape: readonly number[],
  stored: StoredWeight,
  type: QuantizedFormat | "F32",
  onLayer: (layer: QuantizedLayer) => void,
): AsyncGenerator<Uint8Array> {
  const rows = shape.length === 2 ? shape[0]! : 1;
  const inRow = sizeOf(shape) / rows;
  const step = Math.max(1, Math.floor(PIECE / inRow));
  let [squares, changes, bytes] = [0, 0, 0];
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    const part = rows === 1 ? stored : sliceRows(stored, 0, row, count);
    const values = castArray(await readStored(part), "float32").data;
    const wrong = values.find((value) => !Number.isFinite(value));
    if (wrong !== undefined) {
      throw new PatchwiseError(
        `${name} holds ${wrong}, which no block can; give a model of finite numbers.`,
      );
    }
    const piece =
      type === "F32"
        ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
        : quantizeBlocks(type, values);
    if (type !== "F32") {
      const after = new Float32Array(values.length);
      decodeBlocks(type, piece, 0, after);
      for (const [i, value] of values.entries()) {
        squares += value ** 2;
        changes += (value - after[i]!) ** 2;
      }
    }
    bytes += piece.length;
    yield piece;
  }
  onLayer({ name, type, bytes, error: squares === 0 ? 0 : Math.sqrt(changes / squares) });
}
