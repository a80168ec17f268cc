/** Seeded damage to files: to their bytes, to numbers in them, to the values of JSON, and to the words of text. */
import { joined, tryJson } from "../../src/engine/bytes.ts";

/** Uniform in [0, 1). */
export type Random = () => number;

/** Returns a damaged copy of `input`; `other` lends parts. */
export type Mutation = (random: Random, input: Uint8Array, other: Uint8Array) => Uint8Array;

/** A stream of random numbers of 32 bits of state (mulberry32). */
export function generator(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from 0 to `limit` − 1. */
export const below = (random: Random, limit: number) => Math.floor(random() * limit);

export const pick = <T>(random: Random, choices: readonly T[]): T =>
  choices[below(random, choices.length)]!;

/** Input number `index` of a run: a damaged file, or now and then one that is damaged several times. */
export function damaged(
  { sound, mutations }: { sound: readonly Uint8Array[]; mutations: readonly Mutation[] },
  seed: number,
  index: number,
): Uint8Array {
  const random = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
  let input = pick(random, sound);
  const times = random() < 0.7 ? 1 : 2 + below(random, 4);
  for (let i = 0; i < times; i++) {
    input = pick(random, mutations)(random, input, pick(random, sound));
  }
  return input;
}

/** Changes, cuts, adds, splices or moves bytes. */
export function bytes(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array {
  const at = below(random, input.length + 1);
  const length = below(random, Math.min(32, input.length - at + 1));
  const copy = input.slice();
  switch (below(random, 8)) {
    case 0:
      copy[at] = copy[at]! ^ (1 << below(random, 8));
      return copy;
    case 1:
      copy[at] = below(random, 256);
      return copy;
    case 2:
      return joined([input.subarray(0, at), input.subarray(at + length)]);
    case 3: {
      const noise = Uint8Array.from({ length }, () => below(random, 256));
      return joined([input.subarray(0, at), noise, input.subarray(at)]);
    }
    case 4:
      return input.slice(0, at);
    case 5:
      return joined([input, new Uint8Array(1 + below(random, 16))]);
    case 6: {
      const from = below(random, other.length + 1);
      return joined([input.subarray(0, at), other.subarray(from)]);
    }
    default: {
      const target = below(random, input.length + 1);
      copy.copyWithin(target, at, at + length);
      return copy;
    }
  }
}

/** Lengths and counts that break sums, products and allocations. */
const lengths = [
  0n,
  1n,
  2n,
  7n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
].concat([0xffffffffn, 2n ** 40n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]);

/** Overwrites 1, 2, 4 or 8 bytes with a length, in either byte order. */
export function lengthFields(random: Random, input: Uint8Array): Uint8Array {
  const width = pick(random, [1, 2, 4, 8] as const);
  if (input.length < width) return input;
  const copy = input.slice();
  const view = new DataView(copy.buffer);
  const at = below(random, input.length - width + 1);
  const little = random() < 0.5;
  const value =
    random() < 0.3 ? BigInt(input.length + below(random, 9) - 4) : pick(random, lengths);
  if (width === 1) view.setUint8(at, Number(BigInt.asUintN(8, value)));
  else if (width === 2) view.setUint16(at, Number(BigInt.asUintN(16, value)), little);
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), little);
  else view.setBigUint64(at, value, little);
  return copy;
}

/** Values that a reader of JSON or YAML does not expect. */
const hostile: readonly unknown[] = [
  [null, true, false, 0, -1, 1, 0.5, 1e9, 2 ** 31, 2 ** 53, 1e21, -1e300, 1e-320],
  [
    "",
    "a",
    "0",
    "-1",
    "NaN",
    "1e9",
    "a\nb",
    "\u0000\u001b[31m",
    "\u2028",
    "\ud800",
    "../../etc/passwd",
  ],
  ["__proto__", "constructor", "toString", "x".repeat(5000), "(a+)+$", "[", "💥".repeat(50)],
  [[], {}, [[]], [null], [1, 2, 3], { a: 1 }, Array<number>(200).fill(1), { __proto__: null }],
].flat(1);

interface Place {
  readonly holder: Record<string, unknown>;
  readonly key: string;
}

/** All places in plain data that hold a value. */
function placesIn(root: unknown): Place[] {
  const found: Place[] = [];
  const visit = (value: unknown) => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      found.push({ holder: value as Record<string, unknown>, key });
      visit(inner);
    }
  };
  visit({ root });
  return found.slice(1);
}

/** structuredClone fails on data as deep as some of ours. */
const copyOf = (value: unknown): unknown =>
  value === undefined ? undefined : JSON.parse(JSON.stringify(value));

/** Swaps, removes, renames, nests or repeats values of JSON. Texts that are no JSON lose bytes instead. */
export function jsonValues(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array {
  const content = tryJson(new TextDecoder().decode(input));
  const places = placesIn(content);
  if (places.length === 0) return bytes(random, input, other);
  const { holder, key } = pick(random, places);
  const from = pick(random, places);
  switch (below(random, 8)) {
    case 0:
    case 1:
      holder[key] = pick(random, hostile);
      break;
    case 2:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
      break;
    case 3:
      holder[key] = copyOf(from.holder[from.key]);
      break;
    case 4:
      if (!Array.isArray(holder)) {
        holder[pick(random, ["__proto__x", "", "a b", `${key}s`, "kind", from.key])] = holder[key];
      }
      break;
    case 5:
      holder[key] =
        typeof holder[key] === "number"
          ? holder[key] * pick(random, [-1, 2, 1e6, 0.5])
          : [holder[key]];
      break;
    case 6: {
      let nested: unknown = holder[key];
      for (let i = below(random, 800); i > 0; i--) nested = i % 2 ? [nested] : { a: nested };
      holder[key] = nested;
      break;
    }
    default:
      if (Array.isArray(holder)) holder.push(...Array<unknown>(below(random, 300)).fill(holder[0]));
      else holder[key] = pick(random, hostile);
  }
  return new TextEncoder().encode(JSON.stringify(content));
}

/** Words that have a meaning in JSON, YAML, CSV or paths. */
const words = [
  "{} [] null true false ~ : - , \" ' { } [ ] | > & * ! % @ ` # --- ... ?".split(" "),
  "0 -1 1e999 .nan .inf 0x7f 1_000 9007199254740993 NaN Infinity -Infinity 99999999999999999999".split(
    " ",
  ),
  "&a *a <<: !!js/function !!binary __proto__ ../../x /dev/zero C:\\x file_name kind".split(" "),
  [
    "",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u001b[31m",
    "\ufeff",
    "\u2028",
    "[".repeat(500),
    "{a: ".repeat(200),
    "x".repeat(10_000),
  ],
  ["\n  ", "\n- ", "a: &a [*a]\n", "?".repeat(50), '"'.repeat(9)],
].flat();

/** Replaces, removes, repeats or moves words and lines of a text. */
export function textWords(random: Random, input: Uint8Array): Uint8Array {
  const parts = new TextDecoder().decode(input).match(/[\w.]+|\s+|[^\w.\s]/gu) ?? [];
  for (let edits = 1 + below(random, 3); edits > 0 && parts.length > 0; edits--) {
    const at = below(random, parts.length);
    const from = below(random, parts.length);
    switch (below(random, 5)) {
      case 0:
        parts[at] = pick(random, words);
        break;
      case 1:
        parts[at] = parts[from]!;
        break;
      case 2:
        parts.splice(at, 1 + below(random, 3));
        break;
      case 3:
        parts.splice(at, 0, pick(random, words));
        break;
      default:
        parts.splice(at, 0, ...parts.slice(from, from + below(random, 20)));
    }
  }
  return new TextEncoder().encode(parts.join(""));
}
