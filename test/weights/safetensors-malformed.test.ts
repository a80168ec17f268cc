import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { openSafetensors } from "../../src/weights/safetensors/safetensors.ts";
import type { ByteSource } from "../../src/weights/sources/source.ts";
import { concat, fileOf, lengthField, recordedSource } from "./build.ts";

const ascii = (text: string) => new TextEncoder().encode(text);

/** A file with one U8 tensor "x" of 4 bytes, with fields replaced by other JSON text. */
function oneTensor(fields: { dtype?: string; shape?: string; data_offsets?: string }): Uint8Array {
  const all = { dtype: '"U8"', shape: "[4]", data_offsets: "[0,4]", ...fields };
  const text = Object.entries(all).map(([key, value]) => `"${key}":${value}`);
  return fileOf(`{"x":{${text.join(",")}}}`, 4);
}

/** A file of U8 tensors at the given ranges of `size` bytes of data. */
function ranges(size: number, tensors: Record<string, [number, number]>): Uint8Array {
  const entries = Object.entries(tensors).map(
    ([name, [begin, end]]) =>
      `"${name}":{"dtype":"U8","shape":[${end - begin}],"data_offsets":[${begin},${end}]}`,
  );
  return fileOf(`{${entries.join(",")}}`, size);
}

const u8 = (range: string, shape = "[1]") =>
  `{"dtype":"U8","shape":${shape},"data_offsets":${range}}`;

const cases: [what: string, file: Uint8Array, message: string][] = [
  // The frame.
  [
    "an empty file",
    new Uint8Array(0),
    "the file has 0 bytes, but a safetensors file begins with 8 bytes of header length; download or copy it again.",
  ],
  [
    "a file of 7 bytes",
    new Uint8Array(7),
    "the file has 7 bytes, but a safetensors file begins with 8 bytes of header length; download or copy it again.",
  ],
  [
    "a header cut short",
    fileOf("{}").subarray(0, 9),
    "the header should take 2 bytes, but the file has only 1 after the length: it is truncated, or not a safetensors file.",
  ],
  [
    "a header length of 2^64 - 1",
    concat([lengthField(2n ** 64n - 1n), ascii("{}")]),
    "the header should take 18446744073709551615 bytes, but the file has only 2 after the length: it is truncated, or not a safetensors file.",
  ],
  [
    "no header",
    lengthField(0),
    'the header begins with nothing, but must begin with "{": this is not a safetensors file.',
  ],
  [
    "a header that is no object",
    fileOf("[]"),
    'the header begins with byte 91, but must begin with "{": this is not a safetensors file.',
  ],
  [
    "white space first",
    fileOf(" {}"),
    'the header begins with byte 32, but must begin with "{": this is not a safetensors file.',
  ],
  [
    "a byte order mark",
    fileOf("\ufeff{}"),
    'the header begins with byte 239, but must begin with "{": this is not a safetensors file.',
  ],
  [
    "a Git LFS pointer",
    ascii("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "this is not a safetensors file but a Git LFS pointer, not the weights; run `git lfs pull`, or download the file itself.",
  ],
  [
    "a zip archive",
    ascii("PK\u0003\u0004archive/data.pkl"),
    "this is not a safetensors file but a zip archive, perhaps a PyTorch checkpoint; convert it to safetensors.",
  ],
  [
    "a GGUF file",
    ascii("GGUF\u0003\0\0\0\u0001\0\0\0\0\0\0\0"),
    "this is not a safetensors file but a GGUF file; rename it so that its name ends in .gguf.",
  ],
  [
    "a web page",
    ascii("<!DOCTYPE html><html></html>"),
    "this is not a safetensors file but a web page, perhaps an error or a login page; download the file itself.",
  ],

  // The text.
  [
    "bytes that are not UTF-8",
    fileOf(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)),
    "the header is not valid UTF-8 text; the file is damaged.",
  ],
  [
    "an overlong encoding",
    fileOf(Uint8Array.of(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d)),
    "the header is not valid UTF-8 text; the file is damaged.",
  ],
  [
    "an unfinished object",
    fileOf('{"__metadata__":{}'),
    'the header is not valid JSON: expected "," or "}" at character 18, found the end.',
  ],
  [
    "a trailing comma",
    fileOf(`{"x":${u8("[0,1]")},}`, 1),
    'the header is not valid JSON: expected a key in quotes at character 53, found "}".',
  ],
  [
    "text after the object",
    fileOf("{} {}"),
    'the header is not valid JSON: expected the end at character 3, found "{}".',
  ],
  [
    "zero bytes as padding",
    fileOf("{}\0\0"),
    'the header is not valid JSON: expected the end at character 2, found "\\u0000\\u0000".',
  ],
  [
    "a line break in a name",
    fileOf('{"a\nb":1}'),
    'the header is not valid JSON: expected the end of a string at character 3, found "\\nb\\":1}".',
  ],
  [
    "an escape that JSON lacks",
    fileOf('{"\\x41":1}'),
    'the header is not valid JSON: expected a string with valid escapes at character 1, found "\\"\\\\x41\\":1}".',
  ],
  [
    "a short \\u escape",
    fileOf('{"\\u12":1}'),
    'the header is not valid JSON: expected a string with valid escapes at character 1, found "\\"\\\\u12\\":1}".',
  ],
  [
    "half a surrogate pair",
    fileOf('{"\\ud800x":1}'),
    'the string "\\ud800x" has a lone surrogate.',
  ],
  [
    "nesting without end",
    fileOf(`{"x":{"y":${"[".repeat(1000)}`),
    "the header nests deeper than 16 levels at character 25.",
  ],

  // Keys.
  [
    "a tensor twice",
    fileOf(`{"x":${u8("[0,1]")},"x":${u8("[1,2]")}}`, 2),
    'the header has the key "x" twice.',
  ],
  [
    "a tensor twice, once spelt with an escape",
    fileOf(`{"x":${u8("[0,1]")},"\\u0078":${u8("[1,2]")}}`, 2),
    'the header has the key "x" twice.',
  ],
  [
    "a field twice",
    fileOf('{"x":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}', 1),
    'tensor "x" has the key "dtype" twice.',
  ],
  [
    "metadata twice",
    fileOf('{"__metadata__":{},"__metadata__":{}}'),
    'the header has the key "__metadata__" twice.',
  ],
  [
    "a note twice",
    fileOf('{"__metadata__":{"a":"1","a":"2"}}'),
    '__metadata__ has the key "a" twice.',
  ],
  [
    "a tensor __proto__",
    fileOf(`{"__proto__":${u8("[0,1]")}}`, 1),
    'the header has the forbidden key "__proto__"; rename it.',
  ],
  [
    "a path through __proto__",
    fileOf(`{"a.__proto__.polluted":${u8("[0,1]")}}`, 1),
    'the header has the forbidden key "a.__proto__.polluted"; rename it.',
  ],
  [
    "a field __proto__",
    fileOf('{"x":{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}', 1),
    'tensor "x" has the forbidden key "__proto__"; rename it.',
  ],
  [
    "a note __proto__",
    fileOf('{"__metadata__":{"__proto__":"1"}}'),
    '__metadata__ has the forbidden key "__proto__"; rename it.',
  ],
  [
    "more keys than any checkpoint",
    fileOf(
      `{"__metadata__":{${Array.from({ length: 1_000_001 }, (_, i) => `"${i}":""`).join(",")}}}`,
    ),
    "__metadata__ has more than 1000000 keys, which no checkpoint needs; split it into shards.",
  ],

  // Kinds of values.
  [
    "a tensor that is a number",
    fileOf('{"x":1}'),
    'tensor "x" must be an object, but is a number.',
  ],
  [
    "a tensor that is an array",
    fileOf('{"x":[]}'),
    'tensor "x" must be an object, but is an array.',
  ],
  ["a tensor that is null", fileOf('{"x":null}'), 'tensor "x" must be an object, but is null.'],
  [
    "metadata that is text",
    fileOf('{"__metadata__":"pt"}'),
    "__metadata__ must be an object, but is a string.",
  ],
  [
    "a note that is a number",
    fileOf('{"__metadata__":{"epoch":3}}'),
    '__metadata__ value "epoch" must be a string, but is a number.',
  ],
  [
    "a note that is an object",
    fileOf('{"__metadata__":{"a":{}}}'),
    '__metadata__ value "a" must be a string, but is an object.',
  ],
  [
    "a tensor without dtype",
    fileOf('{"x":{"shape":[1],"data_offsets":[0,1]}}', 1),
    'tensor "x" has no dtype.',
  ],
  [
    "a tensor without shape",
    fileOf('{"x":{"dtype":"U8","data_offsets":[0,1]}}', 1),
    'tensor "x" has no shape.',
  ],
  [
    "a tensor without offsets",
    fileOf('{"x":{"dtype":"U8","shape":[1]}}', 1),
    'tensor "x" has no data_offsets.',
  ],
  [
    "a dtype that is a number",
    oneTensor({ dtype: "8" }),
    'tensor "x": dtype must be a string, but is a number.',
  ],
  [
    "a dtype that does not exist",
    oneTensor({ dtype: '"Q4_K"' }),
    'tensor "x" has the dtype "Q4_K", which the format does not define.',
  ],
  [
    "a dtype that every object has",
    oneTensor({ dtype: '"constructor"' }),
    'tensor "x" has the dtype "constructor", which the format does not define.',
  ],
  [
    "a shape that is a number",
    oneTensor({ shape: "4" }),
    'tensor "x": shape must be an array, but is a number.',
  ],
  [
    "a shape of text",
    oneTensor({ shape: '["4"]' }),
    'tensor "x": shape[0] must be a number, but is a string.',
  ],
  [
    "65 dimensions",
    oneTensor({ shape: `[4${",1".repeat(64)}]` }),
    'tensor "x": shape has more than 64 numbers, which is the limit.',
  ],
  [
    "one offset",
    oneTensor({ data_offsets: "[0]" }),
    'tensor "x" has data_offsets [0], but they must be [begin, end].',
  ],
  [
    "three offsets",
    oneTensor({ data_offsets: "[0,4,4]" }),
    'tensor "x": data_offsets has more than 2 numbers, which is the limit.',
  ],

  // Numbers.
  ...["-4", "-0", "4.0", "0.5", "4e0", "9007199254740992", "18446744073709551616", "1e400"].map(
    (number): [string, Uint8Array, string] => [
      `a dimension of ${number}`,
      oneTensor({ shape: `[${number}]` }),
      `tensor "x": shape[0] must be a whole number from 0 to 2^53 - 1, but is ${number}.`,
    ],
  ),
  [
    "a negative offset",
    oneTensor({ data_offsets: "[-4,0]" }),
    'tensor "x": data_offsets[0] must be a whole number from 0 to 2^53 - 1, but is -4.',
  ],
  [
    "a number of many digits",
    oneTensor({ shape: `[${"9".repeat(1000)}]` }),
    `tensor "x": shape[0] must be a whole number from 0 to 2^53 - 1, but is ${"9".repeat(99)}….`,
  ],
  [
    "a leading zero",
    oneTensor({ shape: "[04]" }),
    'the header is not valid JSON: expected "," or "]" at character 29, found "4],\\"data_off".',
  ],
  [
    "NaN",
    oneTensor({ shape: "[NaN]" }),
    'the header is not valid JSON: expected a value at character 28, found "NaN],\\"data_o".',
  ],
  [
    "a shape whose product overflows",
    oneTensor({ shape: "[4294967296,4294967296]" }),
    'tensor "x" is U8 of shape [4294967296, 4294967296], which is more bytes than can be counted.',
  ],
  [
    "a shape whose product overflows to nothing in 64 bits",
    oneTensor({ shape: "[4294967296,4294967296,4]", data_offsets: "[0,0]" }),
    'tensor "x" is U8 of shape [4294967296, 4294967296, 4], which is more bytes than can be counted.',
  ],
  [
    "an empty shape whose strides overflow",
    oneTensor({ shape: "[0,9007199254740991,9007199254740991]", data_offsets: "[0,0]" }),
    'tensor "x" is U8 of shape [0, 9007199254740991, 9007199254740991], which is more bytes than can be counted.',
  ],
  [
    "half bytes",
    oneTensor({ dtype: '"F4"', shape: "[3]" }),
    'tensor "x" is F4 of shape [3]: 12 bits, which is not a whole number of bytes.',
  ],

  // Ranges.
  [
    "offsets that do not match the shape",
    oneTensor({ shape: "[2,3]" }),
    'tensor "x" is U8 of shape [2, 3]: 6 bytes, but its data_offsets [0, 4] hold 4.',
  ],
  [
    "offsets that do not match the dtype",
    oneTensor({ dtype: '"F32"' }),
    'tensor "x" is F32 of shape [4]: 16 bytes, but its data_offsets [0, 4] hold 4.',
  ],
  [
    "offsets in the wrong order",
    oneTensor({ data_offsets: "[4,0]" }),
    'tensor "x" begins at byte 4 of the data, after its end at byte 0.',
  ],
  [
    "data cut short",
    ranges(3, { x: [0, 4] }),
    'tensor "x" ends at byte 4 of the data, but the file has only 3 bytes of data: it is truncated, so download or copy it again.',
  ],
  [
    "trailing bytes",
    ranges(5, { x: [0, 4] }),
    "the tensors end at byte 65 of the file, but the file has 66 bytes; the rest belongs to no tensor.",
  ],
  [
    "data of no tensor",
    fileOf("{}", 8),
    "the tensors end at byte 10 of the file, but the file has 18 bytes; the rest belongs to no tensor.",
  ],
  [
    "a hole",
    ranges(8, { a: [0, 2], b: [4, 8] }),
    'bytes 2 to 4 of the data, before tensor "b" at bytes 4 to 8, belong to no tensor.',
  ],
  [
    "a hole at the start",
    ranges(8, { b: [4, 8] }),
    'bytes 0 to 4 of the data, before tensor "b" at bytes 4 to 8, belong to no tensor.',
  ],
  [
    "an overlap",
    ranges(8, { a: [0, 5], b: [4, 8] }),
    'tensor "b" at bytes 4 to 8 overlaps tensor "a" at bytes 0 to 5.',
  ],
  [
    "two tensors in one place",
    ranges(4, { a: [0, 4], b: [0, 4] }),
    'tensor "b" at bytes 0 to 4 overlaps tensor "a" at bytes 0 to 4.',
  ],
  [
    "an empty tensor inside another",
    ranges(4, { a: [0, 4], e: [2, 2] }),
    'tensor "e" at bytes 2 to 2 overlaps tensor "a" at bytes 0 to 4.',
  ],

  // Names in messages.
  [
    "a name with control characters",
    fileOf('{"a\\n\\u2028\\u202e\\u007f":1}'),
    'tensor "a\\n\\u{2028}\\u{202e}\\u{7f}" must be an object, but is a number.',
  ],
  [
    "a long name",
    fileOf(`{"${"n".repeat(5000)}":1}`),
    `tensor "${"n".repeat(99)}…" must be an object, but is a number.`,
  ],
];

describe("a malformed file", () => {
  it.each(cases)("%s", async (_, file, message) => {
    const error = await openSafetensors(recordedSource(file)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as Error).message).toBe(`m.safetensors: ${message}`);
  });

  it("does not reach Object.prototype", async () => {
    const file = fileOf('{"__proto__":{"polluted":"yes"},"__metadata__":{"__proto__":"x"}}');
    await expect(openSafetensors(recordedSource(file))).rejects.toThrow(FormatError);
    expect("polluted" in {}).toBe(false);
  });
});

describe("size caps", () => {
  it("refuses a long header before it reads any of it", async () => {
    const reads: number[] = [];
    const source: ByteSource = {
      name: "huge.safetensors",
      size: 2 ** 40,
      read: async (_, length) => {
        reads.push(length);
        return lengthField(100_000_001) as Uint8Array<ArrayBuffer>;
      },
    };
    await expect(openSafetensors(source)).rejects.toThrow(
      "huge.safetensors: the header should take 100000001 bytes, but the limit is 100000000.",
    );
    expect(reads).toEqual([8]);
  });

  it("reports a tensor that is longer than an array can be", async () => {
    const header = '{"x":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}';
    const start = fileOf(header);
    const weights = await openSafetensors({
      name: "huge.safetensors",
      size: start.length + 2 ** 40,
      read: async (offset, length) =>
        offset < start.length ? start.slice(offset, offset + length) : new Uint8Array(length),
    });
    await expect(weights.read("x")).rejects.toThrow(
      "huge.safetensors: 1099511627776 bytes are more than one array can hold here; use a machine or a runtime with more memory.",
    );
  });

  it.each([
    ["text", '"', "a", '"'],
    ["escapes", '"', "\\n", '"'],
    ["digits", "", "9", ""],
    ["white space", "", " ", "1"],
    ["numbers", "[", "0,", "0]"],
  ])("handles a header of 20 MB of %s", async (_, open, unit, close) => {
    const filler = unit.repeat(20_000_000 / unit.length);
    const file = fileOf(
      `{"x":{"note":${open}${filler}${close},"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`,
    );
    const { entries } = await openSafetensors(recordedSource(file));
    expect(entries.size).toBe(1);
  });
});
