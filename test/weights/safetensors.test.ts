import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  byteSize,
  castArray,
  type DType,
  dtypes,
  type NdArray,
  ndarray,
  sizeOf,
  toNumbers,
  viewOf,
  zeros,
} from "../../src/engine/arrays/ndarray.ts";
import {
  openSafetensors,
  readFloat32,
  readTensor,
} from "../../src/weights/safetensors/safetensors.ts";
import { safetensorsBytes, safetensorsChunks } from "../../src/weights/safetensors/write.ts";
import { bytesSource } from "../../src/weights/sources/source.ts";
import { concat, fileOf, recordedSource } from "./build.ts";

const open = (bytes: Uint8Array) => openSafetensors(bytesSource(bytes, "m.safetensors"));
const ascii = (text: string) => new TextEncoder().encode(text);

const arrays: fc.Arbitrary<NdArray> = fc
  .record({
    dtype: fc.constantFrom<DType[]>(...dtypes),
    shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }),
    seed: fc.integer({ min: 0, max: 255 }),
  })
  .map(({ dtype, shape, seed }) => {
    const length = sizeOf(shape);
    const bytes = Uint8Array.from({ length: length * byteSize(dtype) }, (_, i) =>
      dtype === "bool" ? (i + seed) & 1 : i * 37 + seed,
    );
    return { dtype, shape, data: viewOf(dtype, bytes.buffer, 0, length) };
  });

const tensorNames = fc
  .string({ unit: "grapheme", maxLength: 20 })
  .filter((name) => name !== "__metadata__" && !name.split(".").includes("__proto__"));

describe("round trip", () => {
  it("keeps every dtype, shape, name and metadata entry, bit for bit", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(tensorNames, arrays), { selector: ([name]) => name, maxLength: 8 }),
        fc.uniqueArray(fc.tuple(tensorNames, fc.string({ unit: "grapheme" })), {
          selector: ([key]) => key,
          maxLength: 3,
        }),
        async (tensors, metadata) => {
          const bytes = safetensorsBytes(tensors, metadata);
          const weights = await open(bytes);
          expect(new Map(weights.metadata)).toEqual(new Map(metadata));
          expect(new Set(weights.entries.keys())).toEqual(new Set(tensors.map(([name]) => name)));
          for (const [name, array] of tensors) {
            const read = await weights.read(name);
            expect({ dtype: read.dtype, shape: read.shape }).toEqual({
              dtype: array.dtype,
              shape: array.shape,
            });
            expect(bytesOfArray(read)).toEqual(bytesOfArray(array));
            const entry = weights.entries.get(name)!;
            expect(entry.aligned).toBe(true);
            expect(bytes.slice(entry.offset, entry.offset + entry.length)).toEqual(
              bytesOfArray(array),
            );
          }
        },
      ),
      { numRuns: 300, seed: 2 },
    );
  });

  it("writes the same bytes for any order of the tensors", () => {
    const tensors = dtypes.map((dtype, i) => [`t${i}`, zeros(dtype, [3])] as const);
    const notes = [
      ["b", "2"],
      ["a", "1"],
      ["10", ""],
      ["9", ""],
    ] as const;
    expect(safetensorsBytes(tensors.toReversed(), notes.toReversed())).toEqual(
      safetensorsBytes(tensors, notes),
    );
  });
});

describe("writing", () => {
  it("lays a file out as the reference implementation does", () => {
    const values = ndarray("float32", [1, 1, 2, 3], [0, 1, 2, 3, 4, 5]);
    expect(safetensorsBytes([["attn0", values]])).toEqual(
      concat([
        Uint8Array.of(72, 0, 0, 0, 0, 0, 0, 0),
        ascii('{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       '),
        new Uint8Array(values.data.buffer),
      ]),
    );
    expect(safetensorsBytes([], [["framework", "pt"]])).toEqual(
      concat([
        Uint8Array.of(40, 0, 0, 0, 0, 0, 0, 0),
        ascii('{"__metadata__":{"framework":"pt"}}     '),
      ]),
    );
    expect(safetensorsBytes([])).toEqual(
      concat([Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0), ascii("{}      ")]),
    );
  });

  it("sorts by element type, largest first, then by the names' UTF-8 bytes", async () => {
    const names = ["b", "a", "\u{1f600}", "\uffee", "aa", ""];
    const tensors = dtypes.flatMap((dtype) =>
      names.map((name) => [`${name}/${dtype}`, zeros(dtype, [1])] as const),
    );
    const { entries } = await open(safetensorsBytes(tensors));
    const written = [...entries.values()];
    expect([...new Set(written.map(({ tag }) => tag))]).toEqual([
      "I64",
      "F64",
      "F32",
      "I32",
      "BF16",
      "F16",
      "F8_E4M3",
      "F8_E5M2",
      "I8",
      "U8",
      "BOOL",
    ]);
    for (let i = 0; i < written.length; i += names.length) {
      const group = written.slice(i, i + names.length).map(({ name }) => name);
      expect(group).toEqual(
        group.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
      );
    }
  });

  it("returns the memory of the arrays, including views", () => {
    const whole = new Float32Array([9, 1, 2, 9]);
    const view = whole.subarray(1, 3);
    const [, chunk] = safetensorsChunks([["x", { dtype: "float32", shape: [2], data: view }]]);
    expect(chunk!.buffer).toBe(whole.buffer);
    expect(chunk!.byteOffset).toBe(4);
    expect(chunk!.byteLength).toBe(8);
  });

  it.each([
    ["__metadata__", 'The tensor name "__metadata__" is reserved; give it another name.'],
    [
      "a.__proto__.b",
      'The tensor name "a.__proto__.b" is one that readers reject; give it another name.',
    ],
    [
      "\ud800",
      'The tensor name "\\ud800" has a lone surrogate, which UTF-8 cannot encode; give it another name.',
    ],
  ])("refuses the name %j", (name, message) => {
    expect(() => safetensorsBytes([[name, zeros("uint8", [])]])).toThrow(message);
  });

  it("refuses two tensors of one name", () => {
    expect(() =>
      safetensorsBytes([
        ["a", zeros("uint8", [])],
        ["a", zeros("int64", [])],
      ]),
    ).toThrow('The tensor name "a" is given twice; give it another name.');
  });

  it("refuses data that does not fit the shape or the dtype", () => {
    expect(() => safetensorsBytes([["x", { ...zeros("float32", [3]), shape: [2, 2] }]])).toThrow(
      'Tensor "x": float32 of shape [2, 2] needs 4 elements of 4 bytes, but its data has 3 of 4.',
    );
    const mislabelled = { dtype: "float16", shape: [2], data: new Float32Array(2) } as NdArray;
    expect(() => safetensorsBytes([["x", mislabelled]])).toThrow(/elements of 2 bytes/);
  });

  it("refuses metadata that are not strings, and a header that readers would refuse", () => {
    const notes = [["format", 1]] as unknown as [string, string][];
    expect(() => safetensorsBytes([], notes)).toThrow(
      /"format" must be a well-formed string, but is "1"/,
    );
    expect(() => safetensorsBytes([], [["long", "x".repeat(100_000_000)]])).toThrow(
      "The header of a safetensors file would take 100000032 bytes, but readers allow 100000000; write several files.",
    );
  });
});

describe("reading", () => {
  const bytes = safetensorsBytes([
    ["small", ndarray("float32", [2], [1, 2])],
    ["large", zeros("float32", [1000])],
    ["half", ndarray("float16", [3], [0.5, -2, 65504])],
  ]);

  it("reads the length, the header, and then only the requested tensor", async () => {
    const source = recordedSource(bytes);
    const weights = await openSafetensors(source);
    const headerLength = source.reads[1]!.length;
    expect(source.reads).toEqual([
      { offset: 0, length: 8 },
      { offset: 8, length: headerLength },
    ]);
    const { offset } = weights.entries.get("small")!;
    await weights.read("small");
    expect(source.reads.slice(2)).toEqual([{ offset, length: 8 }]);
  });

  it("gives the byte range of each tensor", async () => {
    const source = bytesSource(bytes, "m.safetensors");
    const { entries } = await openSafetensors(source);
    const dataStart = bytes.length - 4000 - 8 - 6;
    expect(entries.get("small")).toEqual({
      name: "small",
      tag: "F32",
      dtype: "float32",
      shape: [2],
      source,
      offset: dataStart + 4000,
      length: 8,
      aligned: true,
    });
  });

  it("gives arrays that alias neither the file nor each other", async () => {
    const copy = bytes.slice();
    const weights = await open(copy);
    const first = await weights.read("small");
    first.data[0] = 99;
    expect(toNumbers(await weights.read("small"))).toEqual([1, 2]);
    expect(copy).toEqual(bytes);
  });

  it("names an existing tensor if the requested one is missing", async () => {
    const weights = await open(bytes);
    await expect(weights.read("smal")).rejects.toThrow(
      'm.safetensors: there is no tensor "smal" among its 3, such as "large".',
    );
    await expect((await open(safetensorsBytes([]))).read("x")).rejects.toThrow(
      'm.safetensors: there is no tensor "x" among its 0.',
    );
  });

  it("reads a misaligned tensor and marks it", async () => {
    const data = new Uint8Array(Float32Array.of(1.5, -2).buffer);
    const odd = fileOf('{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} ', data);
    const weights = await open(odd);
    expect(weights.entries.get("x")!.aligned).toBe(false);
    expect(toNumbers(await weights.read("x"))).toEqual([1.5, -2]);
  });

  it("copies memory that is not aligned", async () => {
    const padded = new Uint8Array(bytes.length + 1);
    padded.set(bytes, 1);
    const weights = await openSafetensors({
      name: "shared",
      size: bytes.length,
      read: async (offset, length) => padded.subarray(1 + offset, 1 + offset + length),
    });
    expect(toNumbers(await weights.read("small"))).toEqual([1, 2]);
  });

  it("refuses a source that returns too few bytes", async () => {
    const source = { name: "s", size: 100, read: async () => new Uint8Array(3) };
    await expect(openSafetensors(source)).rejects.toThrow(
      "s: asked for 8 bytes from byte 0, got 3; open it again.",
    );
  });

  it("reads every byte of a bool as true or false", async () => {
    const weights = await open(
      fileOf('{"x":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}', Uint8Array.of(0, 1, 255)),
    );
    expect(toNumbers(await weights.read("x"))).toEqual([0, 1, 1]);
  });

  it("lists unsupported dtypes, and fails to read them", async () => {
    const weights = await open(
      fileOf(
        '{"a":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F4","shape":[2,3],"data_offsets":[3,6]},"c":{"dtype":"U8","shape":[],"data_offsets":[6,7]}}',
        7,
      ),
    );
    expect([...weights.entries.values()].map(({ tag, dtype }) => [tag, dtype])).toEqual([
      ["F8_E8M0", null],
      ["F4", null],
      ["U8", "uint8"],
    ]);
    const message =
      'm.safetensors: tensor "a" has the dtype F8_E8M0, which cannot be read here; convert it to one of BOOL, U8, I8, F8_E5M2, F8_E4M3, F16, BF16, I32, F32, F64, I64.';
    await expect(weights.read("a")).rejects.toThrow(message);
    await expect(readFloat32(weights.entries.get("a")!)).rejects.toThrow(message);
  });

  it("accepts the white space and unknown fields of other writers", async () => {
    const weights = await open(
      fileOf(
        '{\n "x" : { "extra": {"a": [1, -2.5e3, null, true]}, "shape": [ ], "data_offsets": [0, 1], "dtype": "U8" } , "__metadata__": {} }\n  ',
        1,
      ),
    );
    expect(weights.entries.get("x")!.shape).toEqual([]);
  });

  it("accepts empty tensors between others", async () => {
    const weights = await open(
      fileOf(
        '{"e2":{"dtype":"F32","shape":[2,0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e1":{"dtype":"I64","shape":[0],"data_offsets":[2,2]}}',
        2,
      ),
    );
    expect([...weights.entries.keys()]).toEqual(["a", "e2", "b", "e1"]);
    expect((await weights.read("e2")).data).toEqual(new Float32Array(0));
  });

  it("closes its source", async () => {
    let closed = 0;
    const weights = await openSafetensors({
      ...bytesSource(bytes),
      close: async () => void closed++,
    });
    await weights.close();
    expect(closed).toBe(1);
  });

  it("opens a file that a Python tool wrote", async () => {
    const file = new Uint8Array(
      readFileSync(new URL("../fixtures/torch_rng/io.safetensors", import.meta.url)),
    );
    const weights = await open(file);
    expect(weights.entries.size).toBe(42);
    const permutation = await weights.read("randperm.seed0.20");
    expect(permutation.dtype).toBe("int64");
    expect(toNumbers(permutation).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, i) => i),
    );
    const normal = await weights.read("randn.seed0.5");
    expect(normal.shape).toEqual([5]);
    expect(normal.data[0]).toBeCloseTo(1.541, 4);
  });
});

describe("readFloat32", () => {
  it.each(dtypes)("converts %s", async (dtype) => {
    const array = ndarray(dtype, [2, 3], [0, 1, 1, 0, 1, 0]);
    const { entries } = await open(safetensorsBytes([["x", array]]));
    const read = await readFloat32(entries.get("x")!);
    expect(read).toEqual(castArray(await readTensor(entries.get("x")!), "float32"));
  });

  it("reads in chunks of 4 MiB into a given array", async () => {
    const bits = Uint16Array.from({ length: 5_000_000 }, (_, i) => (i * 40503) & 0x7f7f);
    const source = recordedSource(
      safetensorsBytes([["x", { dtype: "bfloat16", shape: [bits.length], data: bits }]]),
    );
    const { entries } = await openSafetensors(source);
    const target = new Float32Array(bits.length);
    const read = await readFloat32(entries.get("x")!, target);
    expect(read.data).toBe(target);
    expect(new Uint32Array(target.buffer).every((word, i) => word === bits[i]! << 16)).toBe(true);
    expect(source.reads.slice(2).map(({ length }) => length)).toEqual([4194304, 4194304, 1611392]);
  });

  it("refuses a target of another size", async () => {
    const { entries } = await open(safetensorsBytes([["x", zeros("float16", [4])]]));
    await expect(readFloat32(entries.get("x")!, new Float32Array(5))).rejects.toThrow(
      'm.safetensors: tensor "x" has 4 elements, but the target has 5.',
    );
  });
});

function bytesOfArray({ data }: NdArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
}
