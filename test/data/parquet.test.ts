import { fileURLToPath } from "node:url";
import { writeFile } from "node:fs/promises";
import type { SchemaElement } from "hyparquet";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import { openData } from "../../src/data/open-node.ts";
import { generator, mutateBytes } from "../weights/mutate.ts";
import { configOf, examplesOf, folderOf, messageOf, open, png, redsOf, small } from "./support.ts";

const nameOf = (error: unknown) => (error instanceof Error ? error.name : String(error));

const text = (name: string): SchemaElement => ({
  name,
  type: "BYTE_ARRAY",
  converted_type: "UTF8",
  repetition_type: "OPTIONAL",
});

const integer: SchemaElement = { name: "label", type: "INT64", repetition_type: "OPTIONAL" };

/** A struct of bytes and path, as Hugging Face stores pictures. */
const struct = (name = "image"): SchemaElement[] => [
  { name, num_children: 2, repetition_type: "OPTIONAL" },
  { name: "bytes", type: "BYTE_ARRAY", repetition_type: "OPTIONAL" },
  text("path"),
];

const list = (name: string): SchemaElement[] => [
  { name, num_children: 1, repetition_type: "OPTIONAL", converted_type: "LIST" },
  { name: "list", num_children: 1, repetition_type: "REPEATED" },
  text("element"),
];

const names = ["cat", "dog"];

function features(of: object): { key: string; value: string }[] {
  return [{ key: "huggingface", value: JSON.stringify({ info: { features: of } }) }];
}

const huggingFace = features({
  image: { _type: "Image" },
  label: { names, _type: "ClassLabel" },
  text: { dtype: "string", _type: "Value" },
  more: [{ dtype: "string" }],
});

/** A parquet file of columns, each with the elements of the schema that it takes. */
function write(
  columns: readonly (ColumnSource & { readonly schema: readonly SchemaElement[] })[],
  options: object = {},
): Uint8Array {
  const schema = [
    { name: "schema", num_children: columns.length },
    ...columns.flatMap((column) => column.schema),
  ];
  const columnData = columns.map(({ name, data }) => ({ name, data }));
  return new Uint8Array(
    parquetWriteBuffer({ columnData, schema, kvMetadata: huggingFace, ...options }),
  );
}

async function pictures(reds: readonly number[]) {
  const data = await Promise.all(
    reds.map(async (red, i) => ({ bytes: new Uint8Array(await png(red)), path: `${i}.png` })),
  );
  return { name: "image", data, schema: struct() };
}

const labels = (data: (bigint | null)[]) => ({ name: "label", data, schema: [integer] });
const texts = (data: (string | null)[], name = "text") => ({ name, data, schema: [text(name)] });

/** Five pictures in row groups of two. */
async function five(first = 0): Promise<Uint8Array> {
  return write(
    [
      await pictures([0, 1, 2, 3, 4].map((i) => first + i)),
      labels([0n, 1n, -1n, null, 1n]),
      texts(["a", "b", null, " ", "e"]),
    ],
    { rowGroupSize: 2 },
  );
}

const openParquet = (path: string, config: object = {}) =>
  open({ kind: "parquet", path, undescribed: "keep", ...config });

async function openFile(bytes: Uint8Array, config: object = {}) {
  return openParquet(`${await folderOf({ "a.parquet": bytes })}/a.parquet`, config);
}

describe("a parquet file", () => {
  it("in Hugging Face's layout gives pictures, labels and captions", async () => {
    const data = await openFile(await five());
    expect(data).toMatchObject({ count: 5, classes: names, captioned: true });
    const examples = await examplesOf(data);
    expect(examples.map(({ pixels, label, captions }) => [pixels[0], label, captions])).toEqual([
      [0, 0, ["a"]],
      [1, 1, ["b"]],
      [2, undefined, []],
      [3, undefined, []],
      [4, 1, ["e"]],
    ]);
    expect(data.nameOf(3)).toMatch(/^row 3 of .*a\.parquet$/);
  });

  it("gives rows in any order", async () => {
    const data = await openFile(await five());
    const order = [4, 0, 3, 4, 2, 1];
    const found = await Promise.all(order.map(async (i) => (await data.example(i)).pixels[0]));
    expect(found).toEqual(order);
  });

  it("can be one of several shards", async () => {
    const path = await folderOf({
      "data/train-00001-of-00002.parquet": await five(5),
      "data/train-00000-of-00002.parquet": await five(),
      "data/test-00000-of-00001.parquet": await five(50),
      "README.md": "",
    });
    const train = await openParquet(path, { split: "train" });
    expect(await redsOf(train)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(train.nameOf(6)).toMatch(/^row 1 of .*train-00001-of-00002\.parquet$/);
    expect(await messageOf(openParquet(path))).toContain("has the splits test, train");
  });

  it("is refused if a row has no caption or label, unless the config says otherwise", async () => {
    const bytes = await five();
    expect(await messageOf(openFile(bytes, { undescribed: "refuse" }))).toMatch(
      /^UsageError: 2 of the 5 pictures in .* have no caption \(the first is row 2 of /,
    );
    expect(await redsOf(await openFile(bytes, { undescribed: "skip" }))).toEqual([0, 1, 4]);
    expect(
      await messageOf(
        openFile(write([await pictures([1]), labels([-1n])]), { undescribed: "refuse" }),
      ),
    ).toContain("The only picture in");
  });

  it("is refused if its shards differ in their columns or classes", async () => {
    const columns = async () => [await pictures([1]), labels([1n])];
    const turned = features({
      image: { _type: "Image" },
      label: { names: ["dog", "cat"], _type: "ClassLabel" },
    });
    const path = await folderOf({
      "classes/0.parquet": write(await columns()),
      "classes/1.parquet": write(await columns(), { kvMetadata: turned }),
      "columns/0.parquet": write(await columns()),
      "columns/1.parquet": write([...(await columns()), texts(["a"])]),
    });
    expect(await messageOf(openParquet(`${path}/classes`))).toMatch(
      /^UsageError: .*0\.parquet and .*1\.parquet are not of one data set: their classes differ \(cat,dog; dog,cat\)/,
    );
    expect(await messageOf(openParquet(`${path}/columns`))).toContain(
      "their columns for `caption` differ (none; text)",
    );
    expect(await openParquet(`${path}/columns`, { caption: false })).toMatchObject({ count: 2 });
  });

  it("uses distinct labels as classes if nothing names them", async () => {
    const numbers = await openFile(
      write([await pictures([1, 2, 3]), labels([10n, 9n, 10n])], { kvMetadata: [] }),
    );
    expect(numbers.classes).toEqual(["9", "10"]);
    expect((await numbers.example(0)).label).toBe(1);
    const words = await openFile(
      write([await pictures([1, 2]), texts(["zebra", "ant"], "label")], { kvMetadata: [] }),
    );
    expect(words.classes).toEqual(["ant", "zebra"]);
    expect((await words.example(0)).label).toBe(1);
    const named = await openFile(
      write([await pictures([1, 2]), texts(["zebra", "ant"], "label")], { kvMetadata: [] }),
      { classes: ["zebra", "ant"] },
    );
    expect((await named.example(0)).label).toBe(0);
  });

  it("can have lists of captions, and bytes without a path", async () => {
    const [one, two] = await Promise.all([png(1), png(2)]);
    const bytes: SchemaElement = { name: "jpg", type: "BYTE_ARRAY", repetition_type: "REQUIRED" };
    const data = await openFile(
      write(
        [
          { name: "jpg", data: [one, two].map((each) => new Uint8Array(each)), schema: [bytes] },
          { name: "captions", data: [["a", "b"], []], schema: list("captions") },
        ],
        { kvMetadata: [] },
      ),
    );
    expect((await examplesOf(data)).map(({ captions }) => captions)).toEqual([["a", "b"], []]);
    expect(await redsOf(data)).toEqual([1, 2]);
    expect(data.classes).toBeUndefined();
  });

  it("is read by the named columns, or without a column", async () => {
    const file = write([
      await pictures([1, 2]),
      labels([0n, 1n]),
      texts(["a", "b"]),
      texts(["c", "d"], "title"),
    ]);
    const titled = await openFile(file, { caption: "title", label: false });
    expect((await titled.example(1)).captions).toEqual(["d"]);
    expect(titled.classes).toBeUndefined();
    expect((await openFile(file, { caption: false })).captioned).toBe(false);
    expect(await messageOf(openFile(file, { caption: "titel" }))).toMatch(
      /^UsageError: .* has no column "titel", which `caption` names; the nearest is "title"\.$/,
    );
  });

  it("tells of texts that are not read", async () => {
    const file = write([await pictures([1]), texts(["a"], "title"), texts(["b"], "URL")]);
    expect((await openFile(file)).notes).toEqual([
      expect.stringMatching(
        /has texts in title, URL, which are not read, so its pictures have no captions/,
      ),
    ]);
    expect((await openFile(file, { caption: "title" })).notes).toEqual([]);
    expect((await openFile(file, { caption: false })).notes).toEqual([]);
  });

  it("is refused if columns are missing or ambiguous", async () => {
    const image = await pictures([1]);
    const other = { ...image, name: "mask", schema: struct("mask") };
    expect(await messageOf(openFile(write([texts(["a"])])))).toMatch(
      /^UsageError: .* has no column of pictures; it has text; say with `image` which one to use\.$/,
    );
    expect(await messageOf(openFile(write([image, other], { kvMetadata: [] })))).toContain(
      "has the columns image and mask; say with `image` which one to use",
    );
    expect(await redsOf(await openFile(write([image, other])))).toEqual([1]);
    expect(
      await messageOf(openFile(write([image, texts(["a"]), texts(["b"], "caption")]))),
    ).toContain("say with `caption` which one to use, or `caption: false` for none");
    expect(await messageOf(openFile(write([await pictures([])])))).toContain("has no rows");
    expect(await messageOf(openParquet(await folderOf()))).toContain("holds no .parquet files");
  });

  it("names rows that cannot be read", async () => {
    const image = {
      name: "image",
      data: [
        { bytes: null, path: "x.png" },
        { bytes: null, path: null },
        { bytes: new TextEncoder().encode("text"), path: null },
        { bytes: new Uint8Array(await png(5)), path: null },
      ],
      schema: struct(),
    };
    const data = await openFile(write([image, labels([0n, 0n, 0n, 7n])]));
    const messages = await Promise.all([0, 1, 2, 3].map((i) => messageOf(data.example(i))));
    expect(messages[0]).toMatch(/^FormatError: row 0 of .* holds only the path of a picture/);
    expect(messages[1]).toMatch(/^FormatError: row 1 of .* holds (only the path|no picture)/);
    expect(messages[2]).toMatch(/^FormatError: row 2 of .* cannot be read as a picture/);
    expect(messages[3]).toMatch(/^FormatError: row 3 of .* has the label 7, but there are 2/);
  });

  it("is refused if its footer is damaged", async () => {
    const sound = await five();
    const cut = await messageOf(openFile(sound.subarray(0, sound.length - 20)));
    expect(cut).toMatch(
      /^FormatError: .*a\.parquet cannot be read as parquet: .*; download it again/,
    );
    expect(await messageOf(openFile(new Uint8Array(0)))).toMatch(/^FormatError: /);
  });

  it("is refused if a run repeats a value more often than its page has values", async () => {
    // hyparquet alone would repeat it for minutes.
    const file = fileURLToPath(new URL("../fixtures/parquet/long-run.parquet", import.meta.url));
    const data = await openParquet(file);
    expect(await messageOf(data.example(0))).toMatch(/^FormatError: .*a run of values is damaged/);
  });

  it("is refused, or its rows are, for any damage", async () => {
    const sound = await five();
    const random = generator(5);
    const damaged = Array.from({ length: 100 }, () => mutateBytes(random, sound, sound));
    for (let at = 0; at < sound.length; at += 21) {
      damaged.push(sound.slice().fill(0, at, at + 64));
      damaged.push(Uint8Array.from([...sound.subarray(0, at), ...sound.subarray(at + 64)]));
    }
    const path = `${await folderOf()}/a.parquet`;
    const outcomes = new Set<string>();
    for (const bytes of damaged) {
      await writeFile(path, bytes);
      const data = await openData(configOf({ kind: "parquet", path }), small).catch(nameOf);
      if (typeof data === "string") outcomes.add(data);
      else {
        for (let i = 0; i < Math.min(data.count, 8); i++) {
          outcomes.add(await data.example(i).then(() => "read", nameOf));
        }
        await data.close();
      }
    }
    // A damaged name of a column is one that is not there.
    outcomes.delete("UsageError");
    expect(outcomes).toEqual(new Set(["FormatError", "read"]));
  });
});
