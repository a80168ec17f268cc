/** Arithmetic on host data, image by image: results do not depend on the other images of a batch. */
import { allocate, type DataOf, type NdArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { ShapeError } from "../engine/errors.ts";

/** The dtypes that samplers compute in. */
export type Real = "float32" | "float64";

/**
 * The sum of coefficient · array, computed in float64 and rounded once: to float64 if one of the arrays is, else to float32.
 * An array with coefficient 0 is ignored, even if it holds NaN; a single array with coefficient 1 is returned as it is.
 *
 * @throws ShapeError unless all arrays are floats of one shape
 */
export function combine(...terms: readonly (readonly [number, NdArray])[]): NdArray<Real> {
  const counted = terms.filter(([coefficient]) => coefficient !== 0);
  const like = checked(terms.map(([, array]) => array));
  const [only] = counted;
  if (only && counted.length === 1 && only[0] === 1) return real(only[1]);
  const dtype = terms.some(([, array]) => array.dtype === "float64") ? "float64" : "float32";
  const sums = new Float64Array(like.data.length);
  for (const [coefficient, array] of counted) {
    const { data } = real(array);
    for (let i = 0; i < sums.length; i++) sums[i]! += coefficient * data[i]!;
  }
  const data = dtype === "float64" ? sums : Float32Array.from(sums);
  return { dtype, shape: like.shape, data };
}

/** Applies f to the elements of one to three arrays of one shape; rounds as `combine` does. */
export function mapElements(
  f: (a: number, b: number, c: number) => number,
  ...arrays: readonly [NdArray, NdArray?, NdArray?]
): NdArray<Real> {
  const [first, second = first, third = first] = arrays;
  const { shape } = checked([first, second, third]);
  const [a, b, c] = [real(first).data, real(second).data, real(third).data];
  const dtype = arrays.some((array) => array?.dtype === "float64") ? "float64" : "float32";
  const data: DataOf[Real] = allocate(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = f(a[i]!, b[i]!, c[i]!);
  return { dtype, shape, data };
}

/** The elements of each image of a batch [B, …], as views. */
export function images({ shape, data }: NdArray<Real>): DataOf[Real][] {
  const count = shape[0] ?? 1;
  const size = data.length / count;
  return Array.from({ length: count }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

/**
 * Channels [0, at) and [at, …) of a batch [B, C, …].
 *
 * @throws ShapeError unless there are more than `at` channels
 */
export function splitChannels(batch: NdArray, at: number): [NdArray<Real>, NdArray<Real>] {
  const { dtype, shape, data } = real(batch);
  const [count = 0, channels = 0, ...space] = shape;
  if (channels <= at) {
    throw new ShapeError(
      `An array of shape [${shape.join(", ")}] has no channels behind the first ${at}; expected [B, C, …] with more than ${at} channels.`,
    );
  }
  const size = sizeOf(space);
  const part = (start: number, end: number): NdArray<Real> => {
    const target: DataOf[Real] = allocate(dtype, count * (end - start) * size);
    for (let i = 0; i < count; i++) {
      const from = i * channels * size;
      const elements = data.subarray(from + start * size, from + end * size);
      target.set(elements, i * (end - start) * size);
    }
    return { dtype, shape: [count, end - start, ...space], data: target };
  };
  return [part(0, at), part(at, channels)];
}

/** Concatenates batches [Bi, …] of one dtype. */
export function stackRows(batches: readonly NdArray[]): NdArray {
  const [first] = batches;
  if (!first) throw new ShapeError("There is no batch to stack; give at least one.");
  if (batches.length === 1) return first;
  const rows = batches.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const shape = [rows, ...first.shape.slice(1)];
  // `set` accepts elements of the same dtype, which TypeScript cannot see.
  const data = allocate(first.dtype, sizeOf(shape)) as Float32Array<ArrayBuffer>;
  let at = 0;
  for (const batch of batches) {
    data.set(batch.data as Float32Array, at);
    at += batch.data.length;
  }
  return { dtype: first.dtype, shape, data };
}

/** Rows [from, from + count) of a batch, as a view. */
export function rowsOf({ dtype, shape, data }: NdArray, from: number, count: number): NdArray {
  const size = sizeOf(shape.slice(1));
  const part = (data as Float32Array<ArrayBuffer>).subarray(from * size, (from + count) * size);
  return { dtype, shape: [count, ...shape.slice(1)], data: part };
}

/**
 * Checks that an array holds floats that JavaScript computes with.
 *
 * @throws ShapeError for any other dtype
 */
export function real(array: NdArray): NdArray<Real> {
  if (array.dtype === "float32" || array.dtype === "float64") return array as NdArray<Real>;
  throw new ShapeError(
    `Samplers compute on float32 or float64, not ${array.dtype}; cast it first.`,
  );
}

function checked(arrays: readonly NdArray[]): NdArray {
  const [first, ...rest] = arrays;
  if (!first) throw new ShapeError("There is no array to compute on; give at least one.");
  const other = rest.find((array) => array.shape.join() !== first.shape.join());
  if (!other) return first;
  throw new ShapeError(
    `Arrays of shapes [${first.shape.join(", ")}] and [${other.shape.join(", ")}] were combined; both must have one shape.`,
  );
}
