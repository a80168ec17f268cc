/**
 * PyTorch's CPU generator, with which a seed gives the same noise as in Python tools.
 *
 * Every function advances the generator by as many draws, and in the same order, as torch 1.13. Uniforms and integers are equal bit
 * by bit, and float32 `randn` of 16 elements or more equals torch's AVX2 build. Shorter and float64 normals and exponentials use
 * `Math.log`, `Math.sin` and `Math.cos` in float64, which may differ from the C library in the last bit; after rounding to float32
 * this is rarely visible. Builds of torch with MKL draw `exponential` from MKL's own streams instead.
 */
import { boxMuller, seedWords } from "./primitives.ts";
import { allocate, type NdArray, ndarray, sizeOf } from "../arrays/ndarray.ts";
import { PatchwiseError } from "../errors.ts";

export interface TorchGenerator {
  /** Returns the next 32 random bits. */
  next(): number;
  /** The unused second half of a Box–Muller pair of a short `randn`, with which the next short one begins. */
  leftover: number | undefined;
}

type Real = "float32" | "float64";

/**
 * `torch.Generator("cpu").manual_seed(seed)`.
 *
 * @param seed an integer in [-2^63, 2^64); as in torch, only its low 32 bits are used
 * @throws PatchwiseError on any other seed
 */
export function torchGenerator(seed: number | bigint): TorchGenerator {
  return { next: mersenneTwister(seedWords(seed)[0]), leftover: undefined };
}

/** MT19937 of Matsumoto and Nishimura, "Mersenne Twister" (1998), with the initialisation of 2002. */
function mersenneTwister(seed: number): () => number {
  const [n, m] = [624, 397];
  const state = new Uint32Array(n);
  state[0] = seed;
  for (let i = 1; i < n; i++) {
    const previous = state[i - 1]!;
    state[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
  }

  function twist(): void {
    for (let i = 0; i < n; i++) {
      const joined = (state[i]! & 0x80000000) | (state[(i + 1) % n]! & 0x7fffffff);
      state[i] = state[(i + m) % n]! ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
    }
  }

  let position = n;
  return () => {
    if (position === n) {
      twist();
      position = 0;
    }
    let y = state[position++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** Draws a float32 in [0, 1) with 24 random bits. */
function uniform32(generator: TorchGenerator): number {
  return (generator.next() & 0xffffff) * 2 ** -24;
}

/** Draws a float64 in [0, 1) from the low 53 of 64 bits; the upper word is drawn first. */
function uniform64(generator: TorchGenerator): number {
  const high = generator.next() & 0x1fffff;
  return (high * 2 ** 32 + generator.next()) * 2 ** -53;
}

function fill<D extends Real>(shape: readonly number[], dtype: D, draw: () => number): NdArray<D> {
  const data = allocate(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = draw();
  return ndarray(dtype, shape, data);
}

/** `torch.rand`: uniform numbers in [0, 1). */
export function rand<D extends Real = "float32">(
  generator: TorchGenerator,
  shape: readonly number[],
  dtype: D = "float32" as D,
): NdArray<D> {
  const draw = dtype === "float32" ? uniform32 : uniform64;
  return fill(shape, dtype, () => draw(generator));
}

/**
 * `torch.randn`: standard normal numbers.
 *
 * Fewer than 16 elements are drawn one by one in float64. More are computed in place from uniforms of `dtype`, in blocks of 16; if
 * the size is not a multiple of 16, the last 16 are drawn again.
 *
 * @example randn(torchGenerator(42), [1, 4, 64, 64])
 */
export function randn<D extends Real = "float32">(
  generator: TorchGenerator,
  shape: readonly number[],
  dtype: D = "float32" as D,
): NdArray<D> {
  const size = sizeOf(shape);
  if (size < 16) return fill(shape, dtype, () => normal64(generator));
  const normals = rand(generator, shape, dtype);
  for (let start = 0; start + 16 <= size; start += 16) transformBlock(normals.data, start);
  if (size % 16 !== 0) {
    normals.data.set(rand(generator, [16], dtype).data, size - 16);
    transformBlock(normals.data, size - 16);
  }
  return normals;
}

/** Draws one normal number in float64 by Box–Muller; the generator keeps the other of the pair. */
function normal64(generator: TorchGenerator): number {
  const { leftover } = generator;
  if (leftover !== undefined) {
    generator.leftover = undefined;
    return leftover;
  }
  const u1 = uniform64(generator);
  const u2 = uniform64(generator);
  const radius = Math.sqrt(-2 * Math.log1p(-u2));
  const theta = 2 * Math.PI * u1;
  generator.leftover = radius * Math.sin(theta);
  return radius * Math.cos(theta);
}

/** Turns 16 uniform numbers into 16 normal ones in place: the elements j and j + 8 are a pair. */
function transformBlock(data: Float32Array | Float64Array, start: number): void {
  for (let j = start; j < start + 8; j++) {
    const u1 = 1 - data[j]!; // in (0, 1], where the logarithm is finite
    const u2 = data[j + 8]!;
    if (data instanceof Float32Array) {
      boxMuller(data, j, j + 8, u1, u2);
      continue;
    }
    const radius = Math.sqrt(-2 * Math.log(u1));
    const theta = 2 * Math.PI * u2;
    data[j] = radius * Math.cos(theta);
    data[j + 8] = radius * Math.sin(theta);
  }
}

/**
 * `torch.randint`: int64 integers in [low, high). As in torch, they are slightly uneven if high - low is very large.
 *
 * @throws PatchwiseError unless both are integers within int64 and low < high
 */
export function randint(
  generator: TorchGenerator,
  low: number | bigint,
  high: number | bigint,
  shape: readonly number[],
): NdArray<"int64"> {
  if (!isInt64(low) || !isInt64(high) || low >= high) {
    throw new PatchwiseError(
      `randint was asked for integers from ${low} up to, but not including, ${high}; give two integers within int64, the first smaller than the second.`,
    );
  }
  const from = BigInt(low);
  const range = BigInt(high) - from;
  const data = new BigInt64Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = from + integerBelow(generator, range);
  return ndarray("int64", shape, data);
}

function isInt64(value: number | bigint): boolean {
  const whole = typeof value === "bigint" || Number.isInteger(value);
  return whole && BigInt.asIntN(64, BigInt(value)) === BigInt(value);
}

/**
 * The remainder of 32 random bits or, for a range of 2^32 or more, of 64 bits with the upper word drawn first.
 * Recent releases of torch 2 use 64 bits from a range of 2^28 on; below that all agree.
 */
function integerBelow(generator: TorchGenerator, range: bigint): bigint {
  const word = BigInt(generator.next());
  if (range < 2n ** 32n) return word % range;
  return ((word << 32n) | BigInt(generator.next())) % range;
}

/**
 * `torch.randperm`: the int64 integers [0, n) in random order.
 *
 * @throws PatchwiseError unless n is an integer in [0, 2^32), because 32 random bits cannot reach more positions
 */
export function randperm(generator: TorchGenerator, n: number): NdArray<"int64"> {
  if (!Number.isInteger(n) || n < 0 || n >= 2 ** 32) {
    throw new PatchwiseError(
      `randperm was asked for ${n} integers; give a whole number from 0 to 2^32 - 1.`,
    );
  }
  const data = new BigInt64Array(n).map((_, i) => BigInt(i));
  for (let i = 0; i < n - 1; i++) {
    const other = i + (generator.next() % (n - i));
    [data[i], data[other]] = [data[other]!, data[i]!];
  }
  return ndarray("int64", [n], data);
}

/** `Tensor.exponential_(rate)`: exponential numbers with mean 1 / rate. */
export function exponential<D extends Real = "float32">(
  generator: TorchGenerator,
  shape: readonly number[],
  rate = 1,
  dtype: D = "float32" as D,
): NdArray<D> {
  return fill(shape, dtype, () => (-1 / rate) * Math.log1p(-uniform64(generator)));
}
