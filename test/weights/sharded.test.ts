import { describe, expect, it } from "vitest";
import { FormatError, PatchwiseError } from "../../src/engine/errors.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { openSharded } from "../../src/weights/safetensors/sharded.ts";
import { type ByteSource, bytesSource } from "../../src/weights/sources/source.ts";

const indexName = "model.safetensors.index.json";

function shard(tensors: Record<string, number>, metadata: Record<string, string> = {}): Uint8Array {
  const arrays = Object.entries(tensors).map(
    ([name, value]) => [name, ndarray("float32", [1], [value])] as const,
  );
  return safetensorsBytes(arrays, Object.entries(metadata));
}

/** Opens an index over shards in memory, and counts which are open. */
async function openAll(index: unknown, shards: Record<string, Uint8Array>) {
  const open = new Set<string>();
  let mostAtOnce = 0;
  let opening = 0;
  const text = typeof index === "string" ? index : JSON.stringify(index);
  const weights = await openSharded(
    bytesSource(new TextEncoder().encode(text), indexName),
    async (file): Promise<ByteSource> => {
      mostAtOnce = Math.max(mostAtOnce, ++opening);
      await new Promise((done) => setTimeout(done, 1));
      opening--;
      const bytes = shards[file];
      if (!bytes) throw new PatchwiseError(`Cannot open ${file}: it is not there.`);
      open.add(file);
      return { ...bytesSource(bytes, file), close: async () => void open.delete(file) };
    },
  ).catch((error: unknown) => error as Error);
  return { weights, open, mostAtOnce: () => mostAtOnce };
}

async function failure(index: unknown, shards: Record<string, Uint8Array> = {}): Promise<string> {
  const { weights, open } = await openAll(index, shards);
  expect(weights).toBeInstanceOf(FormatError);
  expect([...open]).toEqual([]);
  return (weights as Error).message;
}

describe("openSharded", () => {
  it("shows all shards as one", async () => {
    const { weights, open } = await openAll(
      {
        metadata: { total_size: 12, list: [1, { a: null }] },
        weight_map: { a: "m-1.safetensors", c: "m-2.safetensors", b: "m-1.safetensors" },
      },
      {
        "m-1.safetensors": shard({ a: 1, b: 2 }, { format: "pt", note: "first" }),
        "m-2.safetensors": shard({ c: 3 }, { format: "pt", note: "second", other: "x" }),
      },
    );
    if (weights instanceof Error) throw weights;
    expect(weights.name).toBe(indexName);
    expect([...weights.entries.keys()]).toEqual(["a", "c", "b"]);
    expect(toNumbers(await weights.read("c"))).toEqual([3]);
    expect(weights.entries.get("c")!.source.name).toBe("m-2.safetensors");
    expect(Object.fromEntries(weights.metadata)).toEqual({
      format: "pt",
      note: "first",
      other: "x",
    });
    expect(open.size).toBe(2);
    await weights.close();
    expect(open.size).toBe(0);
  });

  it("ignores tensors that the index does not list", async () => {
    const { weights } = await openAll(
      { weight_map: { a: "m.safetensors" } },
      { "m.safetensors": shard({ a: 1, extra: 2 }) },
    );
    if (weights instanceof Error) throw weights;
    expect([...weights.entries.keys()]).toEqual(["a"]);
  });

  it("opens a few shards at a time", async () => {
    const names = Array.from({ length: 30 }, (_, i) => `m-${i}.safetensors`);
    const { weights, open, mostAtOnce } = await openAll(
      { weight_map: Object.fromEntries(names.map((name, i) => [`t${i}`, name])) },
      Object.fromEntries(names.map((name, i) => [name, shard({ [`t${i}`]: i })])),
    );
    expect(weights).not.toBeInstanceOf(Error);
    expect(open.size).toBe(30);
    expect(mostAtOnce()).toBe(6);
  });

  it("names a shard that is missing, and closes the others", async () => {
    const weight_map = { a: "m-1.safetensors", b: "m-2.safetensors", c: "m-3.safetensors" };
    const shards = { "m-1.safetensors": shard({ a: 1 }), "m-3.safetensors": shard({ c: 1 }) };
    expect(await failure({ weight_map }, shards)).toBe(
      `${indexName}: the shard "m-2.safetensors" cannot be opened: Cannot open m-2.safetensors: it is not there.`,
    );
  });

  it("names a shard that is damaged", async () => {
    expect(
      await failure(
        { weight_map: { a: "m.safetensors" } },
        { "m.safetensors": shard({ a: 1 }).subarray(0, -1) },
      ),
    ).toBe(
      'm.safetensors: tensor "a" ends at byte 4 of the data, but the file has only 3 bytes of data: it is truncated, so download or copy it again.',
    );
  });

  it("names a tensor that is not in its shard", async () => {
    expect(
      await failure(
        { weight_map: { a: "m.safetensors", b: "m.safetensors" } },
        { "m.safetensors": shard({ a: 1 }) },
      ),
    ).toBe(`${indexName}: tensor "b" should be in the shard "m.safetensors", but is not there.`);
  });

  it("names a tensor that is in two shards", async () => {
    expect(
      await failure(
        { weight_map: { a: "m-1.safetensors", b: "m-2.safetensors" } },
        { "m-1.safetensors": shard({ a: 1 }), "m-2.safetensors": shard({ a: 1, b: 2 }) },
      ),
    ).toBe(`${indexName}: tensor "a" is in two shards, "m-1.safetensors" and "m-2.safetensors".`);
  });

  it.each([
    "../m.safetensors",
    "/etc/m.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "C:m.safetensors",
    "file:m.safetensors",
    "m.bin",
    ".safetensors/..",
    "..",
    "",
    ".safetensors",
    "m\0.safetensors",
  ])("refuses the shard name %j", async (file) => {
    expect(await failure({ weight_map: { a: file } })).toBe(
      `${indexName}: weight_map places tensor "a" in ${JSON.stringify(file)}, but a shard must be a plain file name that ends in .safetensors.`,
    );
  });

  it.each([
    ["{}", "the index has no weight_map."],
    ["[]", "the index must be an object, but is an array."],
    ["", "the index is not valid JSON: expected a value at character 0, found the end."],
    ['{"weight_map":[]}', "weight_map must be an object, but is an array."],
    ['{"weight_map":{"a":1}}', 'weight_map entry "a" must be a string, but is a number.'],
    [
      '{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}',
      'weight_map has the key "a" twice.',
    ],
    [
      '{"weight_map":{"__proto__":"1.safetensors"}}',
      'weight_map has the forbidden key "__proto__"; rename it.',
    ],
    [
      '{"weight_map":{}} x',
      'the index is not valid JSON: expected the end at character 18, found "x".',
    ],
  ])("refuses the index %j", async (index, message) => {
    expect(await failure(index)).toBe(`${indexName}: ${message}`);
  });

  it("refuses an index with too many files or bytes", async () => {
    const weight_map = Object.fromEntries(
      Array.from({ length: 4097 }, (_, i) => [`t${i}`, `${i}.safetensors`]),
    );
    expect(await failure({ weight_map })).toBe(
      `${indexName}: the index names 4097 files, but the limit is 4096.`,
    );
    const long: ByteSource = {
      name: "i.json",
      size: 100_000_001,
      read: () => Promise.reject(new Error("was read")),
    };
    await expect(openSharded(long, () => Promise.reject(new Error("was opened")))).rejects.toThrow(
      "i.json: the index takes 100000001 bytes, but the limit is 100000000.",
    );
  });
});
