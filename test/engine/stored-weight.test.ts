import { describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import {
  arrayWeight,
  fileWeight,
  isInPlace,
  type ReadFile,
  readWeight,
  relocated,
  reshaped,
  rowsWeight,
  scaledWeight,
  sliceRows,
  weightBytes,
  weightFiles,
  weightType,
} from "../../src/engine/runtime/stored-weight.ts";

// [4, 3]: 0 to 11. The file has 8 bytes in front of it.
const values = Array.from({ length: 12 }, (_, i) => i);
const whole = ndarray("float32", [4, 3], values);
const file = new Uint8Array(8 + 48);
file.set(new Uint8Array(whole.data.buffer), 8);

const readFile: ReadFile = async (target, path, offset) => {
  expect(path).toBe("w.bin");
  target.set(file.subarray(offset, offset + target.length));
};

const kinds = {
  array: arrayWeight(whole),
  file: fileWeight("w.bin", 8, "float32", [4, 3]),
  rows: rowsWeight([
    fileWeight("w.bin", 8, "float32", [1, 3]),
    arrayWeight(ndarray("float32", [2, 3], values.slice(3, 9))),
    fileWeight("w.bin", 8 + 36, "float32", [1, 3]),
  ]),
};

/** Rows of 8-bit floats and a scale for each, or for all; both read as the same rows 0 to 11. */
const eighths = ndarray("float8_e4m3fn", [4, 3], values);
const scaled = {
  "8-bit floats and one scale": scaledWeight(
    arrayWeight(ndarray("float8_e5m2", [4, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14])),
    arrayWeight(ndarray("float32", [], [0.75])),
  ),
  "8-bit floats and a scale for each row": scaledWeight(
    arrayWeight(eighths),
    arrayWeight(ndarray("float32", [4, 1], [1, 0.5, 3, 7])),
  ),
};

describe.each(Object.entries(scaled))("a weight stored as %s", (kind, weight) => {
  const expected = kind.includes("one")
    ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14].map((value) => 0.75 * value)
    : values.map((value, i) => value * [1, 0.5, 3, 7][Math.floor(i / 3)]!);

  it("is read as float32, whole, by rows and in another shape", async () => {
    expect(weightType(weight)).toEqual({ dtype: "float32", shape: [4, 3] });
    expect(await readWeight(weight, readFile)).toEqual(ndarray("float32", [4, 3], expected));
    expect(await readWeight(sliceRows(weight, 0, 1, 2), readFile)).toEqual(
      ndarray("float32", [2, 3], expected.slice(3, 9)),
    );
    expect(await readWeight(sliceRows(reshaped(weight, [4, 3, 1, 1]), 0, 2, 1), readFile)).toEqual(
      ndarray("float32", [1, 3, 1, 1], expected.slice(6, 9)),
    );
  });

  it("is computed with in place where a runtime reads 8-bit floats", () => {
    expect(isInPlace(weight, () => true)).toBe(true);
    expect(isInPlace(weight, (dtype) => dtype === "float32")).toBe(false);
    expect(weightBytes(weight)).toBe(kind.includes("one") ? 16 : 28);
  });
});

describe.each(Object.entries(kinds))("a weight stored as %s", (kind, weight) => {
  it("has a type and a size, and is read as one array", async () => {
    expect(weightType(weight)).toMatchObject({ dtype: "float32", shape: [4, 3] });
    expect(weightBytes(weight)).toBe(48);
    expect(await readWeight(weight, readFile)).toEqual(whole);
  });

  it("is sliced along the first axis with a row", async () => {
    for (let start = 0; start < 4; start++) {
      for (let count = 1; start + count <= 4; count++) {
        const slice = sliceRows(weight, 0, start, count);
        expect(await readWeight(slice, readFile)).toEqual(
          ndarray("float32", [count, 3], values.slice(3 * start, 3 * (start + count))),
        );
      }
    }
  });

  it("is reshaped without moving a number", async () => {
    const convolution = reshaped(weight, [4, 3, 1, 1]);
    expect(await readWeight(convolution, readFile)).toEqual({ ...whole, shape: [4, 3, 1, 1] });
  });

  it("names its files, which can be renamed", () => {
    const names = kind === "array" ? [] : kind === "file" ? ["w.bin"] : ["w.bin", "w.bin"];
    expect(weightFiles(weight)).toEqual(names);
    expect(weightFiles(relocated(weight, (path) => `/mnt/${path}`))).toEqual(
      names.map((name) => `/mnt/${name}`),
    );
  });
});
