/**
 * Operations on weights, for each form in which they are stored. A new form is one more member of `StoredWeight` (weight-forms.ts) and one
 * more row of `storages`, and nothing else looks at `kind`.
 */
import { blockFormats, blockRange } from "../arrays/blocks.ts";
import { scaleRows, toFloat32 } from "../arrays/convert.ts";
import { PatchwiseError } from "../errors.ts";
import { quantizedColumns, quantizedRows } from "../arrays/channels.ts";
import {
  allocate,
  byteSize,
  castArray,
  type DType,
  type NdArray,
  sizeOf,
  viewOf,
} from "../arrays/ndarray.ts";
import { rotateGroups } from "../arrays/hadamard.ts";
import { addProduct } from "../arrays/low-rank.ts";
import { permuteAxes } from "../arrays/permute.ts";
import { readBlocks } from "./read-blocks.ts";
import {
  arrayWeight,
  arrayWeights,
  type BlocksWeight,
  type ReadFile,
  type ScaledWeight,
  type Storage,
  type StoredWeight,
  type WeightEmitter,
  type WeightType,
} from "./weight-forms.ts";

export { arrayWeight, arrayWeights };
export type { BlocksWeight, ReadFile, StoredWeight, WeightEmitter, WeightType };

/** The scales of weights whose values were read, so that they are not read a second time for them. */
const rowScales = new WeakMap<StoredWeight, Float32Array>();

const storages: { readonly [W in StoredWeight as W["kind"]]: Storage<W> } = {
  array: {
    type: ({ array }) => array,
    label: ({ array }) => array.dtype,
    bytes: ({ array }) => array.data.byteLength,
    files: () => [],
    relocated: (weight) => weight,
    reshaped: ({ array }, shape) => arrayWeight({ ...array, shape }),
    slice({ array }, axis, start, count) {
      const inRow = sizeOf(array.shape.slice(axis + 1));
      const data = array.data.subarray(start * inRow, (start + count) * inRow);
      return arrayWeight({ ...array, shape: array.shape.with(axis, count), data });
    },
    inPlace: ({ array }, readable) => readable(array.dtype),
    gatherable: () => true,
    fetched: () => false,
    async read({ array: { data } }, target) {
      target.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    },
    emit: ({ array }, name, emitter) => emitter.array(name, array),
  },
  file: {
    type: (weight) => weight,
    label: ({ dtype }) => dtype,
    bytes: ({ length }) => length,
    files: ({ path }) => [path],
    relocated: (weight, rename) => ({ ...weight, path: rename(weight.path) }),
    reshaped: (weight, shape) => ({ ...weight, shape }),
    slice(weight, axis, start, count) {
      const { path, offset, dtype, shape } = weight;
      const rowBytes = sizeOf(shape.slice(axis + 1)) * byteSize(dtype);
      return fileWeight(path, offset + start * rowBytes, dtype, shape.with(axis, count));
    },
    inPlace: ({ dtype }, readable) => readable(dtype),
    gatherable: () => true,
    fetched: () => false,
    read: ({ path, offset }, target, readFile) => readFile(target, path, offset),
    emit: (weight, name, emitter) => emitter.file(name, weight),
  },
  rows: {
    type({ parts }) {
      const { dtype, shape } = weightType(parts[0]!);
      return { dtype, shape: shape.with(0, sum(parts.map(rowsIn))) };
    },
    label: ({ parts }) => [...new Set(parts.map(weightLabel))].join(" and "),
    bytes: ({ parts }) => sum(parts.map(weightBytes)),
    files: ({ parts }) => parts.flatMap(weightFiles),
    relocated: ({ parts }, rename) => rowsWeight(parts.map((part) => relocated(part, rename))),
    reshaped: ({ parts }, shape) =>
      rowsWeight(parts.map((part) => reshaped(part, shape.with(0, rowsIn(part))))),
    slice({ parts }, axis, start, count) {
      // The first axis has length 1 here, so there is a single part.
      if (axis > 0) return sliceRows(parts[0]!, axis, start, count);
      const found: StoredWeight[] = [];
      let top = 0;
      for (const part of parts) {
        const rows = rowsIn(part);
        const [from, to] = [Math.max(start, top), Math.min(start + count, top + rows)];
        if (from < to) found.push(sliceRows(part, 0, from - top, to - from));
        top += rows;
      }
      return found.length === 1 ? found[0]! : rowsWeight(found);
    },
    inPlace: ({ parts }, readable) => parts.every((part) => isInPlace(part, readable)),
    gatherable: () => false,
    fetched: ({ parts }) => parts.every(isFetched),
    async read({ parts }, target, readFile) {
      let top = 0;
      for (const part of parts) {
        const { dtype, shape } = weightType(part);
        const end = top + sizeOf(shape) * byteSize(dtype);
        await storageOf(part).read(part, target.subarray(top, end), readFile);
        top = end;
      }
    },
    emit: ({ parts }, name, emitter) =>
      emitter.concat(parts.map((part, i) => emitWeight(part, `${name}#${i}`, emitter))),
  },
  blocks: {
    type: ({ shape }) => ({ dtype: "float32", shape }),
    label: ({ format }) => format,
    bytes: ({ format, first, shape }) => blockRange(format, first, sizeOf(shape)).length,
    files: ({ path }) => (path === undefined ? [] : [path]),
    relocated: (weight, rename) =>
      weight.path === undefined ? weight : { ...weight, path: rename(weight.path) },
    reshaped: (weight, shape) => ({ ...weight, shape }),
    slice(weight, axis, start, count) {
      const { first, shape } = weight;
      const inRow = sizeOf(shape.slice(axis + 1));
      return { ...weight, first: first + start * inRow, shape: shape.with(axis, count) };
    },
    inPlace: ({ format, first, shape, fetch: fetchRange }, readable) =>
      fetchRange === undefined &&
      readable("uint8") &&
      [first, sizeOf(shape)].every((count) => count % blockFormats[format].numbers === 0),
    gatherable: ({ format, shape }) => shape.at(-1)! % blockFormats[format].numbers === 0,
    fetched: (weight) => weight.fetch !== undefined,
    read: readBlocks,
    emit: (weight, name, emitter) => emitter.blocks(name, weight),
  },
  scaled: {
    type: ({ numbers }) => ({ dtype: "float32", shape: weightType(numbers).shape }),
    label: ({ numbers }) => weightLabel(numbers),
    bytes: ({ numbers, scale }) => weightBytes(numbers) + weightBytes(scale),
    files: ({ numbers, scale }) => [...weightFiles(numbers), ...weightFiles(scale)],
    relocated: ({ numbers, scale, rotated }, rename) =>
      scaledWeight(relocated(numbers, rename), relocated(scale, rename), rotated),
    reshaped({ numbers, scale, rotated }, shape) {
      const rows = [rowsIn(scale), ...shape.slice(1).map(() => 1)];
      const own = isSingle(scale) ? scale : reshaped(scale, rows);
      return scaledWeight(reshaped(numbers, shape), own, rotated);
    },
    slice({ numbers, scale, rotated }, axis, start, count) {
      if (axis > 0 && rotated !== undefined) return refuseCut();
      const own = axis > 0 || isSingle(scale) ? scale : sliceRows(scale, 0, start, count);
      return scaledWeight(sliceRows(numbers, axis, start, count), own, rotated);
    },
    inPlace: ({ numbers, scale }, readable) =>
      isInPlace(numbers, readable) && isInPlace(scale, readable),
    gatherable: () => false,
    fetched: ({ numbers }) => isFetched(numbers),
    async read({ numbers, scale, rotated }, target, readFile) {
      const [stored, scales] = [
        await readWeight(numbers, readFile),
        castArray(await readWeight(scale, readFile), "float32").data,
      ];
      const { length } = stored.data;
      const values = viewOf("float32", target.buffer as ArrayBuffer, target.byteOffset, length);
      toFloat32(stored.dtype, stored.data, values);
      scaleRows(values, scales);
      if (rotated !== undefined) rotateGroups(values, rotated);
    },
    emit({ numbers, scale, rotated }, name, emitter) {
      const scaled = emitter.multiply(
        emitWeight(numbers, `${name}#numbers`, emitter),
        emitWeight(scale, `${name}#scale`, emitter),
      );
      if (rotated === undefined) return scaled;
      return emitter.rotate(scaled, rotated, weightType(numbers).shape);
    },
  },
  remote: {
    type: (weight) => weight,
    label: ({ dtype }) => dtype,
    bytes: ({ dtype, shape }) => sizeOf(shape) * byteSize(dtype),
    files: () => [],
    relocated: (weight) => weight,
    reshaped: (weight, shape) => ({ ...weight, shape }),
    slice(weight, axis, start, count) {
      const { offset, dtype, shape } = weight;
      const rowBytes = sizeOf(shape.slice(axis + 1)) * byteSize(dtype);
      return { ...weight, offset: offset + start * rowBytes, shape: shape.with(axis, count) };
    },
    inPlace: () => false,
    gatherable: () => false,
    fetched: () => true,
    async read({ fetch: fetchRange, offset }, target) {
      target.set(await fetchRange(offset, target.length));
    },
    emit(_, name) {
      throw new PatchwiseError(`The weight ${name} was not fetched.`);
    },
  },
  permuted: {
    type: ({ of, shape }) => ({ dtype: weightType(of).dtype, shape }),
    label: ({ of }) => weightLabel(of),
    bytes: ({ of, shape }) => sizeOf(shape) * byteSize(weightType(of).dtype),
    files: ({ of }) => weightFiles(of),
    relocated: (weight, rename) => ({ ...weight, of: relocated(weight.of, rename) }),
    reshaped: (weight, shape) => ({ ...weight, shape }),
    slice(weight, axis, start, count) {
      if (axis > 0) return refuseCut();
      const rows = { start: start + (weight.rows?.start ?? 0), count };
      return { ...weight, rows, shape: weight.shape.with(0, count) };
    },
    inPlace: () => false,
    gatherable: () => false,
    fetched: () => false,
    async read({ of, axes, rows, shape }, target, readFile) {
      const { data } = permuteAxes(await readWeight(of, readFile), axes);
      const inRow = (sizeOf(shape) / shape[0]!) * data.BYTES_PER_ELEMENT;
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const from = (rows?.start ?? 0) * inRow;
      target.set(bytes.subarray(from, from + target.length));
    },
    emit(_, name) {
      throw new PatchwiseError(`The axes of ${name} were not put in order.`);
    },
  },
  adapted: {
    type: ({ base }) => ({ dtype: "float32", shape: weightType(base).shape }),
    label: ({ base }) => weightLabel(base),
    bytes: ({ base, up, down }) => weightBytes(base) + up.data.byteLength + down.data.byteLength,
    files: ({ base }) => weightFiles(base),
    relocated: (weight, rename) => ({ ...weight, base: relocated(weight.base, rename) }),
    reshaped: (weight, shape) => ({ ...weight, base: reshaped(weight.base, shape) }),
    slice({ base, up, down }, axis, start, count) {
      if (axis > 0) return refuseCut();
      const [, rank = 0] = up.shape;
      const data = up.data.subarray(start * rank, (start + count) * rank);
      const rows = { ...up, shape: [count, rank], data };
      return { kind: "adapted", base: sliceRows(base, 0, start, count), up: rows, down };
    },
    inPlace: ({ base }, readable) => isInPlace(base, readable),
    gatherable: () => false,
    fetched: ({ base }) => isFetched(base),
    async read({ base, up, down }, target, readFile) {
      const stored = castArray(await readWeight(base, readFile), "float32").data;
      const { length } = stored;
      const values = viewOf("float32", target.buffer as ArrayBuffer, target.byteOffset, length);
      values.set(stored);
      addProduct(values, up, down);
    },
    emit({ base, up, down }, name, emitter) {
      const own = emitWeight(base, `${name}#base`, emitter);
      const [left, right] = [emitter.array(`${name}#up`, up), emitter.array(`${name}#down`, down)];
      return emitter.adapt(own, left, right, weightType(base).shape);
    },
  },
  channels: {
    type({ part, backward, of }) {
      const [outputs, inputs] = weightType(of).shape as readonly [number, number];
      const [from, to] = backward ? [outputs, inputs] : [inputs, outputs];
      return part === "scale"
        ? { dtype: "float32", shape: [to] }
        : { dtype: "int8", shape: [from, to] };
    },
    label: (weight) => weightType(weight).dtype,
    bytes(weight) {
      const { dtype, shape } = weightType(weight);
      return sizeOf(shape) * byteSize(dtype);
    },
    files: ({ of }) => weightFiles(of),
    relocated: (weight, rename) => ({ ...weight, of: relocated(weight.of, rename) }),
    reshaped: refuseCut,
    slice: refuseCut,
    inPlace: () => false,
    gatherable: () => false,
    fetched: () => false,
    async read({ part, backward, of }, target, readFile) {
      const shape = weightType(of).shape as readonly [number, number];
      const read = async (start: number, count: number) =>
        castArray(await readWeight(sliceRows(of, 0, start, count), readFile), "float32").data;
      const quantized = backward ? quantizedColumns : quantizedRows;
      if (part === "values") {
        const values = new Int8Array(target.buffer, target.byteOffset);
        const scales = await quantized({ shape, read }, values);
        if (!backward) rowScales.set(of, scales);
        return;
      }
      const known = backward ? undefined : rowScales.get(of);
      target.set(new Uint8Array((known ?? (await quantized({ shape, read }))).buffer));
    },
    emit(_, name) {
      throw new PatchwiseError(`The channels of ${name} were not quantized.`);
    },
  },
};

function isSingle(weight: StoredWeight): boolean {
  return sizeOf(weightType(weight).shape) === 1;
}

function refuseCut(): never {
  throw new PatchwiseError("Weights that are quantized by channel are read as a whole.");
}

function storageOf(weight: StoredWeight): Storage<StoredWeight> {
  return storages[weight.kind];
}

/**
 * The weight [out, in] of a linear layer in 8 bits, each channel of the output with a scale of its own.
 *
 * @param backward true for the product with it in the backward pass, whose outputs are the layer's inputs
 */
export function channelsWeight(
  of: StoredWeight,
  backward = false,
): { values: StoredWeight; scale: StoredWeight } {
  return {
    values: { kind: "channels", part: "values", backward, of },
    scale: { kind: "channels", part: "scale", backward, of },
  };
}

export function fileWeight(
  path: string,
  offset: number,
  dtype: DType,
  shape: readonly number[],
): StoredWeight {
  return { kind: "file", path, offset, length: sizeOf(shape) * byteSize(dtype), dtype, shape };
}

/** @param parts at least one weight; all have the same dtype and, apart from the first axis, the same shape */
export function rowsWeight(parts: readonly StoredWeight[]): StoredWeight {
  return { kind: "rows", parts };
}

/** Numbers in blocks, as GGUF files hold them. */
export function blocksWeight(weight: Omit<BlocksWeight, "kind">): StoredWeight {
  return { kind: "blocks", ...weight };
}

/**
 * Numbers times a scale: one number, or one for each row of shape [rows, 1, …]. They are read as float32.
 *
 * @param rotated the size of the groups that a rotation mixed
 */
export function scaledWeight(
  numbers: StoredWeight,
  scale: StoredWeight,
  rotated?: number,
): ScaledWeight {
  return { kind: "scaled", numbers, scale, rotated };
}

/** A weight whose axes are those of another in the order `axes`. */
export function permutedWeight(of: StoredWeight, axes: readonly number[]): StoredWeight {
  const { shape } = weightType(of);
  return { kind: "permuted", of, axes, shape: axes.map((axis) => shape[axis]!) };
}

/** A weight to which programs add `up` [rows, rank] · `down` [rank, columns]. */
export function adaptedWeight(
  base: StoredWeight,
  up: NdArray<"float32">,
  down: NdArray<"float32">,
): StoredWeight {
  return { kind: "adapted", base, up, down };
}

/**
 * Whether a runtime computes with a weight as it is stored.
 *
 * @param readable whether the runtime reads weights of a dtype
 */
export function isInPlace(weight: StoredWeight, readable: (dtype: DType) => boolean): boolean {
  return storageOf(weight).inPlace(weight, readable);
}

/** Returns true if rows of a matrix can be chosen before its numbers are computed. */
export function isGatherable(weight: StoredWeight): boolean {
  return storageOf(weight).gatherable(weight);
}

/** Returns true if the bytes of a weight, and of some of its rows, are fetched as they are needed. */
export function isFetched(weight: StoredWeight): boolean {
  return storageOf(weight).fetched(weight);
}

export function weightType(weight: StoredWeight): WeightType {
  return storageOf(weight).type(weight);
}

/** The type of a weight's numbers as they are stored, such as "float16" or "Q8_0". */
export function weightLabel(weight: StoredWeight): string {
  return storageOf(weight).label(weight);
}

/** Bytes that a weight takes as it is stored, on disk or in memory. */
export function weightBytes(weight: StoredWeight): number {
  return storageOf(weight).bytes(weight);
}

/** The files that hold a weight; one file may be named several times. */
export function weightFiles(weight: StoredWeight): readonly string[] {
  return storageOf(weight).files(weight);
}

export function relocated(weight: StoredWeight, rename: (path: string) => string): StoredWeight {
  return storageOf(weight).relocated(weight, rename);
}

/** The same numbers in another shape of as many elements, whose first axis is as long. */
export function reshaped(weight: StoredWeight, shape: readonly number[]): StoredWeight {
  return storageOf(weight).reshaped(weight, shape);
}

/** `count` rows from row `start` of an axis; all axes before it must have length 1. */
export function sliceRows(
  weight: StoredWeight,
  axis: number,
  start: number,
  count: number,
): StoredWeight {
  return storageOf(weight).slice(weight, axis, start, count);
}

/** Reads a weight into a new array, in the dtype of `weightType`. */
export async function readWeight(weight: StoredWeight, readFile: ReadFile): Promise<NdArray> {
  const { dtype, shape } = weightType(weight);
  const data = allocate(dtype, sizeOf(shape));
  await storageOf(weight).read(weight, new Uint8Array(data.buffer), readFile);
  return { dtype, shape, data };
}

/** Adds a weight to an ONNX graph and returns the name of the value that holds it. */
export function emitWeight(weight: StoredWeight, name: string, emitter: WeightEmitter): string {
  return storageOf(weight).emit(weight, name, emitter);
}

function rowsIn(weight: StoredWeight): number {
  return weightType(weight).shape[0]!;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
