/**
 * Seeded damage to safetensors files: to their bytes, to the tokens of their header, and to its structure.
 */
import {
  below,
  bytes as mutateBytes,
  generator,
  pick,
  type Random,
} from "../../scripts/fuzz/mutations.ts";
import { concat, fileOf, lengthField } from "./build.ts";

export { generator, mutateBytes };

const numbers = [
  "0 1 2 3 4 7 8 16 255 65536 2147483648 4294967296 9007199254740991 9007199254740992".split(" "),
  "18446744073709551615 -1 -0 1.0 1.5 1e2 1e400 00 0x10 +1 NaN Infinity".split(" "),
  "9".repeat(400),
].flat();

const strings = [
  "U8 BOOL F16 BF16 I32 F32 F64 I64 F4 F6_E2M3 F8_E4M3 U64 f32 Q8 a b dtype shape".split(" "),
  "data_offsets __metadata__ __proto__ x.__proto__.y constructor \\u0061 \\ud800 \\x \\".split(" "),
  ["", "a\nb", "\u2028", "n".repeat(300)],
]
  .flat()
  .map((text) => `"${text}"`);

const values = [
  '{} [] null true false [0,0] [[0]] {"a":{"b":[]}} , { } [ ] : /**/ \''.split(" "),
  ["", " ", "\t", "\n", "\0", "\ufeff", "[".repeat(40), '{"":'.repeat(40)],
].flat();

const lengths = [0n, 1n, 2n, 7n, 8n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

function mutateLength(random: Random, file: Uint8Array): Uint8Array {
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  const shifted = length + BigInt(below(random, 33) - 16);
  const changed = random() < 0.6 ? (shifted < 0n ? 0n : shifted) : pick(random, lengths);
  return concat([lengthField(changed), file.subarray(8)]);
}

/** Changes tokens of the header, and keeps the length field right so that the damage is reached. */
export function mutateTokens(random: Random, file: Uint8Array): Uint8Array {
  const { text, data } = split(file);
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|-?\d+|[^"\d]/gu) ?? [];
  for (let edits = 1 + below(random, 3); edits > 0 && tokens.length > 0; edits--) {
    const at = below(random, tokens.length);
    const token = tokens[at]!;
    const kind = below(random, 6);
    if (kind === 0) tokens.splice(at, 1);
    else if (kind === 1) tokens.splice(at, 0, pick(random, tokens));
    else if (kind === 2) tokens[at] = pick(random, values);
    else if (kind === 3) tokens[at] = pick(random, tokens);
    else if (token.startsWith('"')) tokens[at] = pick(random, strings);
    else if (/^-?\d/.test(token)) tokens[at] = nearNumber(random, token);
    else {
      const from = below(random, tokens.length);
      const span = tokens.slice(from, from + below(random, 20));
      tokens.splice(at, below(random, 20), ...span);
    }
  }
  return fileOf(tokens.join(""), data);
}

function nearNumber(random: Random, token: string): string {
  return random() < 0.5 ? pick(random, numbers) : String(Number(token) + below(random, 9) - 4);
}

interface Entry {
  dtype: unknown;
  shape: number[];
  data_offsets: number[];
}

/** Moves, swaps, renames and reshapes whole tensors: files that are well-formed, and sometimes sound. */
function mutateStructure(random: Random, file: Uint8Array): Uint8Array {
  const { text, data } = split(file);
  const header = Object.entries(JSON.parse(text) as Record<string, Entry>);
  const tensors = header.filter(([name]) => name !== "__metadata__");
  if (tensors.length === 0) return mutateBytes(random, file, file);
  const [first, one] = pick(random, tensors);
  const [second, two] = pick(random, tensors);
  switch (below(random, 7)) {
    case 0:
      [one.data_offsets, two.data_offsets] = [two.data_offsets, one.data_offsets];
      break;
    case 1:
      [one.dtype, two.dtype] = [two.dtype, one.dtype];
      break;
    case 2:
      [one.shape, two.shape] = [two.shape, one.shape];
      break;
    case 3:
      one.shape.sort(() => random() - 0.5).push(...Array<number>(below(random, 70)).fill(1));
      break;
    case 4:
      one.data_offsets = one.data_offsets.map((offset) => offset + below(random, 3) - 1);
      break;
    case 5:
      header.splice(below(random, header.length), 1);
      break;
    default:
      header.push([random() < 0.5 ? first : `${second}'`, structuredClone(two)]);
  }
  header.sort(() => random() - 0.5);
  const fields = header.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`);
  const resized =
    random() < 0.9 ? data : data.slice(0, Math.max(0, data.length + below(random, 9) - 4));
  return fileOf(`{${fields.join(",")}}`, resized);
}

function split(file: Uint8Array): { text: string; data: Uint8Array } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const text = new TextDecoder().decode(file.subarray(8, 8 + length));
  return { text, data: file.subarray(8 + length) };
}

/** One damaged copy of a sound file; now and then damaged twice. */
export function mutate(random: Random, sound: readonly Uint8Array[]): Uint8Array {
  const file = pick(random, sound);
  const kind = random();
  let damaged: Uint8Array;
  if (kind < 0.45) damaged = mutateTokens(random, file);
  else if (kind < 0.75) damaged = mutateStructure(random, file);
  else if (kind < 0.83) damaged = mutateLength(random, file);
  else damaged = mutateBytes(random, file, pick(random, sound));
  return random() < 0.15 ? mutateBytes(random, damaged, file) : damaged;
}
