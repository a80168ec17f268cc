import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { dtypes, ndarray, sizeOf, zeros } from "../../src/engine/arrays/ndarray.ts";
import { FormatError } from "../../src/engine/errors.ts";
import {
  openSafetensors,
  readTensor,
  type Weights,
} from "../../src/weights/safetensors/safetensors.ts";
import { tags } from "../../src/weights/safetensors/format.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { openSharded } from "../../src/weights/safetensors/sharded.ts";
import { type ByteSource, bytesSource } from "../../src/weights/sources/source.ts";
import { fileOf } from "./build.ts";
import { generator, mutate, mutateBytes, mutateTokens } from "./mutate.ts";

const FILES = 100_000;
const MAX_HEADER_BYTES = 100_000_000;

const fixture = readFileSync(new URL("../fixtures/torch_rng/io.safetensors", import.meta.url));

/** Sound files of every kind: they are what gets damaged. */
const sound: readonly Uint8Array[] = [
  safetensorsBytes([]),
  safetensorsBytes([["a", ndarray("float32", [2], [1, 2])]]),
  safetensorsBytes(
    dtypes.map((dtype, i) => [`blocks.${i}.weight`, zeros(dtype, [i % 3, 2, 3])]),
    [["format", "pt"]],
  ),
  safetensorsBytes(
    [
      ["", zeros("uint8", [])],
      ["名前 \u{1f600}\n", zeros("bool", [5])],
    ],
    [
      ["long", "x".repeat(300)],
      ["empty", ""],
    ],
  ),
  fileOf(
    '{ "b" : {"data_offsets":[3, 9], "shape":[4,3], "dtype":"F4", "more":[1,{"x":null}]}, "\\u0061\\/":{"dtype":"F8_E5M2","shape":[3],"data_offsets":[0,3]} }  ',
    9,
  ),
  new Uint8Array(fixture),
];

/** Fails on any read that a hostile file should not be able to cause. */
function guardedSource(bytes: Uint8Array): ByteSource {
  const source = bytesSource(bytes, "f");
  return {
    ...source,
    read: (offset, length) => {
      if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
        throw new Error(`read outside the file: ${length} bytes from ${offset}`);
      }
      if (length > MAX_HEADER_BYTES) throw new Error(`read beyond the cap: ${length} bytes`);
      return source.read(offset, length);
    },
  };
}

/** What is wrong with an accepted file; undefined when every promise about it holds. */
async function brokenPromise(weights: Weights, file: Uint8Array): Promise<string | undefined> {
  let position: number | undefined;
  for (const [name, entry] of weights.entries) {
    const bits = tags.get(entry.tag)?.bits;
    if (entry.name !== name || bits === undefined) return `entry ${name} of ${entry.tag}`;
    if (!entry.shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0))
      return `shape of ${name}`;
    if ((sizeOf(entry.shape) * bits) / 8 !== entry.length) return `length of ${name}`;
    if (position !== undefined && position !== entry.offset) return `gap before ${name}`;
    position = entry.offset + entry.length;
    if (entry.dtype) {
      const { data } = await readTensor(entry);
      if (data.byteLength !== entry.length) return `data of ${name}`;
    }
  }
  if (position !== undefined && position !== file.length) return "bytes after the last tensor";
  const expected = naiveNames(file);
  const found = [...weights.entries.keys()].toSorted();
  return JSON.stringify(found) === JSON.stringify(expected) ? undefined : "names";
}

/** The tensors' names as JSON.parse sees them; undefined where it cannot, or where a plain check fails. */
function naiveNames(file: Uint8Array): string[] | undefined {
  if (file.length < 8) return undefined;
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (length > file.length - 8) return undefined;
  const bytes = file.subarray(8, 8 + Number(length));
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const header = JSON.parse(text) as Record<string, unknown>;
    // JSON.parse keeps one of two equal keys; each key that was written has a colon.
    const written = text.replace(/"(?:[^"\\]|\\.)*"/g, "").split(":").length - 1;
    if (written !== countKeys(header)) return undefined;
    const { __metadata__: notes = {}, ...tensors } = header;
    if (Object.prototype.toString.call(notes) !== "[object Object]") return undefined;
    if (Object.values(notes as object).some(isNoString)) return undefined;
    const spans = Object.values(tensors).map(naiveSpan);
    spans.sort((a, b) => a.begin - b.begin || a.end - b.end);
    const last = spans.reduce((end, span) => (span.begin === end ? span.end : NaN), 0);
    return last === file.length - 8 - bytes.length ? Object.keys(tensors).toSorted() : undefined;
  } catch {
    return undefined;
  }
}

function naiveSpan(entry: unknown): { begin: number; end: number } {
  const { dtype, shape, data_offsets } = entry as Record<string, never[]>;
  const [begin = NaN, end = NaN, ...more] = data_offsets!;
  const bits = shape!.reduce((a, b) => a * b, tags.get(String(dtype))!.bits);
  const right =
    bits === 8 * (end - begin) &&
    more.length === 0 &&
    shape!.length <= 64 &&
    [begin, end, ...shape!].every((number) => typeof number === "number");
  return { begin, end: right ? end : NaN };
}

function countKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, child) => sum + countKeys(child), own);
}

const isNoString = (value: unknown) => typeof value !== "string";

/** What is refused although JSON.parse and plain arithmetic find nothing wrong with it. */
const stricter =
  /forbidden key|lone surrogate|nests deeper|must be a whole number|must be an array|can be counted|header begins with/;

/** What is wrong with a refusal; undefined when it is one clear sentence for a file that deserves it. */
function brokenRefusal(error: unknown, file: Uint8Array): string | undefined {
  if (!(error instanceof FormatError)) return `not a FormatError: ${String(error)}`;
  const { message } = error;
  if (!/^f: [^\n\r\p{Cc}\p{Cs}\u2028\u2029]+\.$/u.test(message)) return `not one line: ${message}`;
  if (message.length > 800) return `too long: ${message}`;
  if (naiveNames(file) && !stricter.test(message)) return `refused a sound file: ${message}`;
  return undefined;
}

/** Messages that differ only in names and numbers are of one kind. */
function kindOf(message: string): string {
  return message.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/[-\d.…]+(?=\W)/g, "0");
}

describe("damaged files", () => {
  it(`never crash, hang or over-read: each of ${FILES} is valid or gives a one-sentence error`, async () => {
    const random = generator(20240229);
    const kinds = new Set<string>();
    let accepted = 0;
    for (let i = 0; i < FILES; i++) {
      const file = mutate(random, sound);
      let problem: string | undefined;
      try {
        problem = await brokenPromise(await openSafetensors(guardedSource(file)), file);
        accepted++;
      } catch (error) {
        problem = brokenRefusal(error, file);
        kinds.add(kindOf((error as Error).message));
      }
      if (problem)
        throw new Error(`file ${i} (base64 ${Buffer.from(file).toString("base64")}): ${problem}`);
    }
    expect(Object.keys(Object.prototype)).toEqual([]);
    // Damage that is always noticed at the same place, or never, would test little.
    expect(accepted).toBeGreaterThan(FILES / 20);
    expect(accepted).toBeLessThan(FILES / 2);
    expect(kinds.size).toBeGreaterThan(30);
  }, 240_000);

  it("are found in index files too", async () => {
    const random = generator(7);
    const sources = [
      fileOf(
        '{"metadata":{"total_size":12},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}',
      ),
      fileOf('{"weight_map":{}}'),
    ];
    const shard = (name: string) => safetensorsBytes([[name, zeros("float32", [1])]]);
    const shards = new Map([
      ["m-1.safetensors", shard("a")],
      ["m-2.safetensors", shard("b")],
    ]);
    const outcomes = new Set<string>();
    for (let i = 0; i < 10_000; i++) {
      // The mutations work on text behind a length field, which an index does not have.
      const damaged = mutateTokens(random, sources[i % 2]!);
      const file = i % 5 ? damaged : mutateBytes(random, damaged, sources[0]!);
      const text = file.subarray(8);
      const opened = openSharded(bytesSource(text, "f"), async (name) => {
        const bytes = shards.get(name);
        if (!bytes) throw new FormatError(`no ${name}.`);
        return bytesSource(bytes, "f");
      });
      const outcome = await opened.then(
        ({ entries }) => [...entries.keys()].join(),
        (error: unknown) => brokenRefusal(error, new Uint8Array(0)) ?? "refused",
      );
      outcomes.add(outcome);
    }
    expect([...outcomes].toSorted()).toEqual(["", "a", "a,b", "refused"]);
  });
});
