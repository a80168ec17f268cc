import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseIdx } from "../../src/data/formats/idx-node.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { examplesOf, folderOf, idx, messageOf, open, outcomeOf } from "./support.ts";

/** Three pictures of 2×2. */
const pixels = Array.from({ length: 12 }, (_, i) => 20 * i);
const train = {
  "train-images-idx3-ubyte": idx([3, 2, 2], pixels),
  "train-labels-idx1-ubyte": idx([3], [7, 0, 9]),
};
const grey = { height: 2, width: 2, channels: 1 } as const;

describe("parseIdx", () => {
  it("reads arrays of any shape", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 4 }),
        (shape) => {
          const size = shape.reduce((a, b) => a * b, 1);
          const data = Array.from({ length: size }, (_, i) => i % 256);
          const parsed = parseIdx(idx(shape, data), shape.length, "a");
          expect(parsed.shape).toEqual(shape);
          expect([...parsed.data]).toEqual(data);
        },
      ),
    );
  });

  it.each([
    ["does not begin with two zero bytes", Uint8Array.from([1, 0, 8, 1, 0, 0, 0, 0])],
    ["does not begin with two zero bytes", new Uint8Array(3)],
    ["elements of type 0x0d", idx([0], [], 13)],
    ["has 2 axes, but 1 were expected", idx([1, 1], [5])],
    ["ends inside its header", idx([1], []).subarray(0, 6)],
    ["declares 5 bytes, but 4 follow", idx([5], [1, 2, 3, 4])],
    ["declares 3 bytes, but 4 follow", idx([3], [1, 2, 3, 4])],
  ])("refuses a file that %s", (message, bytes) => {
    expect(() => parseIdx(bytes, 1, "labels")).toThrow(message);
    expect(() => parseIdx(bytes, 1, "labels")).toThrow(FormatError);
  });

  it("parses any bytes or throws, without allocating declared sizes", () => {
    const sound = train["train-images-idx3-ubyte"];
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.nat(sound.length),
        (changes, length) => {
          const bytes = sound.slice(0, length);
          for (const [at, value] of changes) if (at < length) bytes[at] = value;
          const outcome = outcomeOf(() => {
            const { shape, data } = parseIdx(bytes, 3, "f");
            if (shape.reduce((a, b) => a * b, 1) !== data.length) throw new Error("lengths");
          });
          expect(["done", "FormatError"]).toContain(outcome);
        },
      ),
      { numRuns: 3000, seed: 7 },
    );
  });
});

describe("a folder of IDX files", () => {
  it("returns pictures, labels and the ten digits as classes", async () => {
    const data = await open({ kind: "idx", path: await folderOf(train) }, grey);
    expect(data.classes).toEqual("0123456789".split(""));
    expect(data).toMatchObject({ count: 3, captioned: false });
    const examples = await examplesOf(data);
    expect(examples.map(({ label }) => label)).toEqual([7, 0, 9]);
    expect(examples.flatMap((example) => [...example.pixels])).toEqual(pixels);
  });

  it("accepts gzipped files, and test images named t10k or test", async () => {
    const files = {
      "t10k-images.idx3-ubyte.gz": gzipSync(idx([1, 2, 2], [1, 2, 3, 4])),
      "test-labels-idx1-ubyte": idx([1], [3]),
    };
    const data = await open({ kind: "idx", split: "test", path: await folderOf(files) }, grey);
    expect([...(await data.example(0)).pixels]).toEqual([1, 2, 3, 4]);
    expect(data.nameOf(0)).toContain("image 0 of");
  });

  it("uses Fashion-MNIST's class names for a folder of that name, or the given ones", async () => {
    const root = await folderOf(
      Object.fromEntries(
        Object.entries(train).map(([name, bytes]) => [`Fashion-MNIST/${name}`, bytes]),
      ),
    );
    const fashion = await open({ kind: "idx", path: `${root}/Fashion-MNIST/` }, grey);
    expect(fashion.classes?.[7]).toBe("Sneaker");
    expect(fashion.classes).toHaveLength(10);
    const classes = Array.from({ length: 10 }, (_, i) => `c${i}`);
    const named = await open({ kind: "idx", path: `${root}/Fashion-MNIST`, classes }, grey);
    expect(named.classes).toEqual(classes);
  });

  it("has one class per letter", async () => {
    const letters = { ...train, "train-labels-idx1-ubyte": idx([3], [1, 26, 2]) };
    const data = await open({ kind: "idx", path: await folderOf(letters) }, grey);
    expect(data.classes).toHaveLength(27);
  });

  it("pads, crops or scales pictures and converts grey to three channels", async () => {
    const path = await folderOf(train);
    const first = async (config: object, height: number, width: number, channels: 1 | 3 = 1) => {
      const data = await open({ kind: "idx", path, ...config }, { height, width, channels });
      return [...(await data.example(1)).pixels];
    };
    expect(await first({ fit: "pad" }, 4, 3)).toEqual([0, 0, 0, 80, 100, 0, 120, 140, 0, 0, 0, 0]);
    expect(await first({ fit: "pad", background: "white" }, 2, 4)).toEqual([
      255, 80, 100, 255, 255, 120, 140, 255,
    ]);
    expect((await first({ fit: "pad", background: "#ff0000" }, 2, 4))[0]).toBe(76);
    expect(await first({ fit: "pad" }, 1, 1)).toEqual([140]);
    expect(await first({}, 2, 2, 3)).toEqual([
      80, 80, 80, 100, 100, 100, 120, 120, 120, 140, 140, 140,
    ]);
    expect(await first({}, 1, 1)).toEqual([110]);
    expect(await first({ fit: "contain" }, 1, 3)).toEqual([0, 110, 0]);
    expect(await first({}, 4, 4)).toHaveLength(16);
  });

  it("returns pixels that the caller may modify", async () => {
    const data = await open({ kind: "idx", path: await folderOf(train) }, grey);
    (await data.example(0)).pixels.fill(99);
    expect([...(await data.example(0)).pixels]).toEqual(pixels.slice(0, 4));
  });

  it("takes examples at even distances for a limit", async () => {
    const path = await folderOf(train);
    const labels = async (limit: number) =>
      (await examplesOf(await open({ kind: "idx", path, limit }, grey))).map(({ label }) => label);
    expect(await labels(2)).toEqual([7, 0]);
    expect(await labels(9)).toEqual([7, 0, 9]);
  });

  it("is refused with a one-sentence error", async () => {
    const message = async (files: Record<string, Uint8Array>, config = {}) =>
      messageOf(open({ kind: "idx", path: await folderOf(files), ...config }, grey));
    expect(await messageOf(open({ kind: "idx", path: "/nowhere" }))).toMatch(
      /^UsageError: Cannot open the IDX folder \/nowhere: there is no such file/,
    );
    expect(await messageOf(open({ kind: "idx", path: "/usr/share/datasets/none" }))).toContain(
      "install Debian's package dataset-fashion-mnist",
    );
    expect(await message(train, { split: "test" })).toMatch(
      /^UsageError: .* has no t10k-images-idx3-ubyte or \.gz, which the split "test" needs/,
    );
    expect(await message({ ...train, "train-labels-idx1-ubyte": idx([2], [1, 2]) })).toMatch(
      /has 3 images, but .* has 2 labels/,
    );
    expect(await message(train, { classes: ["a", "b"] })).toMatch(
      /has the label 7 for image 0, but there are names for 2 classes/,
    );
    expect(await message({ ...train, "train-images-idx3-ubyte": idx([3, 0, 2], []) })).toContain(
      "holds no pixels",
    );
    const { "train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels } = train;
    const cut = gzipSync(images).subarray(0, 20);
    expect(
      await message({ "train-images-idx3-ubyte.gz": cut, "train-labels-idx1-ubyte": labels }),
    ).toMatch(/^FormatError: .*train-images-idx3-ubyte\.gz cannot be decompressed: /);
  });
});
