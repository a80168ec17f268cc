import { describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import {
  arrayWeight,
  fileWeight,
  type ReadFile,
  readWeight,
  relocated,
  reshaped,
  rowsWeight,
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
