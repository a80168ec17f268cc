/**
 * Random numbers for training, as a pure function of a key and a position. There is no state, so any element can be drawn at any
 * time and on any device, and every image, worker or layer can have its own stream.
 *
 * Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): the 128-bit counter
 * holds the stream in its upper half and the number of the block in its lower one; a block is four 32-bit words.
 * All arithmetic is exact or rounded to float32 after each operation, so every JavaScript engine gives the same numbers.
 */
import { boxMuller, seedWords } from "./primitives.ts";
import { PatchwiseError } from "../errors.ts";
import { type NdArray, ndarray, sizeOf } from "../arrays/ndarray.ts";

/** Names one random sequence; plain data that can be stored or sent to a worker. All four are 32-bit words. */
export interface RandomKey {
  readonly seed: readonly [low: number, high: number];
  readonly stream: readonly [low: number, high: number];
}

/**
 * Returns the key of a seed and a numbered stream.
 *
 * @example const noise = normal(fork(randomKey(42), "noise"), [4, 8, 8]);
 * @throws PatchwiseError unless both are integers in [-2^63, 2^64)
 */
export function randomKey(seed: number | bigint, stream: number | bigint = 0): RandomKey {
  return { seed: seedWords(seed), stream: seedWords(stream) };
}

/**
 * Returns an independent key for a part of the work, such as `fork(fork(key, "image"), index)`.
 *
 * The same name gives the same key each time; the number 1 and the text "1" give different ones.
 */
export function fork(key: RandomKey, name: string | number | bigint): RandomKey {
  if (typeof name !== "string") return absorb(key, 0, seedWords(name));
  // The length comes first, so that "a" and "a\0" differ; then two UTF-16 code units in each step.
  let forked = absorb(key, 1, [name.length, 0]);
  for (let i = 0; i < name.length; i += 2) {
    const next = i + 1 < name.length ? name.charCodeAt(i + 1) : 0;
    forked = absorb(forked, 2, [name.charCodeAt(i), next]);
  }
  return forked;
}

/** One block under a marked key, so that no draw from `key` itself gives the words of a fork. */
function absorb(key: RandomKey, kind: number, name: readonly [number, number]): RandomKey {
  const seed = [key.seed[0] ^ 0x9e3779b9, key.seed[1] ^ (0x85ebca6b + kind)] as const;
  const [a, b, c, d] = philox4x32([...name, ...key.stream], seed);
  return { seed: [a!, b!], stream: [c!, d!] };
}

/** Returns the high 32 bits of the product of two 32-bit words, computed in 16-bit halves because a float64 cannot hold 64 bits. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh] = [a & 0xffff, a >>> 16];
  const [bLow, bHigh] = [b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const rest = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (rest >>> 16);
}

/**
 * Computes ten rounds of Philox, which give four random words for a counter and a key, lowest word first.
 *
 * @param counter four 32-bit words
 * @param key two 32-bit words
 * @param out receives the four words
 */
export function philox4x32(
  counter: readonly number[],
  key: readonly [number, number],
  out: Uint32Array = new Uint32Array(4),
): Uint32Array {
  let [c0, c1, c2, c3] = counter as [number, number, number, number];
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0);
    const high1 = multiplyHigh(0xcd9e8d57, c2);
    const low0 = Math.imul(0xd2511f53, c0);
    const low1 = Math.imul(0xcd9e8d57, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
  return out;
}

/** Returns the 32-bit words at positions `start` … `start + length - 1` of a key's sequence. */
export function randomBits(key: RandomKey, length: number, start = 0): Uint32Array {
  const words = new Uint32Array(length);
  const block = new Uint32Array(4);
  const counter = [0, 0, ...key.stream];
  for (let i = 0; i < length; i++) {
    const position = start + i;
    if (i === 0 || position % 4 === 0) {
      const number = Math.floor(position / 4);
      counter[0] = number % 2 ** 32;
      counter[1] = Math.floor(number / 2 ** 32);
      philox4x32(counter, key.seed, block);
    }
    words[i] = block[position % 4]!;
  }
  return words;
}

/**
 * Draws uniform float32 numbers in [0, 1) with 24 random bits each.
 *
 * @param start position of the first element in the key's sequence, below 2^53: drawing [0, 8) at once or as
 *   [0, 3) and [3, 8) gives the same numbers
 */
export function uniform(key: RandomKey, shape: readonly number[], start = 0): NdArray<"float32"> {
  const words = randomBits(key, sizeOf(shape), start);
  const data = new Float32Array(words.length);
  for (let i = 0; i < data.length; i++) data[i] = (words[i]! >>> 8) * 2 ** -24;
  return ndarray("float32", shape, data);
}

/**
 * Draws standard normal float32 numbers, at most 6.7 in magnitude.
 *
 * @param start position of the first element in the key's sequence, below 2^53
 */
export function normal(key: RandomKey, shape: readonly number[], start = 0): NdArray<"float32"> {
  const size = sizeOf(shape);
  // Positions 2k and 2k + 1 are a Box–Muller pair; a range that begins or ends inside a pair draws the whole pair.
  const skipped = start % 2;
  const words = randomBits(key, skipped + size + ((skipped + size) % 2), start - skipped);
  const normals = new Float32Array(words.length);
  for (let i = 0; i < words.length; i += 2) {
    // All 32 bits go into the radius, whose logarithm determines the tail; u1 is in (0, 1].
    const u1 = Math.fround((words[i]! + 1) * 2 ** -32);
    boxMuller(normals, i, i + 1, u1, (words[i + 1]! >>> 8) * 2 ** -24);
  }
  const whole = normals.length === size;
  return ndarray("float32", shape, whole ? normals : normals.slice(skipped, skipped + size));
}

/** Draws `length` fractions in [0, 1) with 53 random bits, from two words each. */
function fractions(key: RandomKey, length: number, start: number): Float64Array {
  const words = randomBits(key, 2 * length, 2 * start);
  const drawn = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    drawn[i] = ((words[2 * i]! >>> 5) * 2 ** 26 + (words[2 * i + 1]! >>> 6)) * 2 ** -53;
  }
  return drawn;
}

/**
 * Draws int64 integers in [low, high). Their probabilities differ by less than a factor of 1 + 2^-20.
 *
 * @param start position of the first element in the key's sequence of integers, below 2^52
 * @throws PatchwiseError unless both are safe integers and 0 < high - low <= 2^32
 */
export function integers(
  key: RandomKey,
  low: number,
  high: number,
  shape: readonly number[],
  start = 0,
): NdArray<"int64"> {
  const range = high - low;
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || range <= 0 || range > 2 ** 32) {
    throw new PatchwiseError(
      `Random integers were asked for from ${low} up to, but not including, ${high}; give two integers, the second larger by 1 to 2^32.`,
    );
  }
  const drawn = fractions(key, sizeOf(shape), start);
  const data = new BigInt64Array(drawn.length);
  for (let i = 0; i < data.length; i++) data[i] = BigInt(low + Math.floor(drawn[i]! * range));
  return ndarray("int64", shape, data);
}

/**
 * Returns the integers [0, n) in random order (Fisher and Yates); all orders are equally likely.
 *
 * @throws PatchwiseError unless n is an integer in [0, 2^32)
 */
export function permutation(key: RandomKey, n: number): Uint32Array {
  if (!Number.isInteger(n) || n < 0 || n >= 2 ** 32) {
    throw new PatchwiseError(
      `A permutation of ${n} elements was asked for; give a whole number from 0 to 2^32 - 1.`,
    );
  }
  const order = new Uint32Array(n).map((_, i) => i);
  const drawn = fractions(key, n, 0);
  for (let i = 0; i < n - 1; i++) {
    const other = i + Math.floor(drawn[i]! * (n - i));
    [order[i], order[other]] = [order[other]!, order[i]!];
  }
  return order;
}
