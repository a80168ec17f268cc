import { execFileSync } from "node:child_process";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { examplesOf, folderOf, messageOf, open, png, redsOf } from "./support.ts";

/** PNGs by name, each with its number as colour, and other files. */
async function pictures(
  reds: Record<string, number>,
  others: Record<string, string> = {},
): Promise<string> {
  const files: Record<string, string | Uint8Array> = { ...others };
  for (const [name, red] of Object.entries(reds)) files[name] = await png(red);
  return folderOf(files);
}

const images = (path: string, config: object = {}) => open({ kind: "images", path, ...config });
const captionsOf = async (path: string, config: object = {}) =>
  (await examplesOf(await images(path, config))).map(({ captions }) => captions);
const labelsOf = async (path: string, config: object = {}) =>
  (await examplesOf(await images(path, config))).map(({ label }) => label);

describe("pictures in a folder", () => {
  it("are found in all subfolders, sorted, without hidden files", async () => {
    const path = await pictures(
      {
        "b.PNG": 2,
        "a.png": 1,
        "x/a.png": 3,
        ".hidden.png": 9,
        "__MACOSX/a.png": 9,
        ".g/a.png": 9,
      },
      { "notes.md": "" },
    );
    const data = await images(path, { classes: false });
    expect(await redsOf(data)).toEqual([1, 2, 3]);
    expect(data).toMatchObject({ name: path, count: 3, classes: undefined, captioned: false });
    expect(data.nameOf(2)).toBe(join(path, "x/a.png"));
  });

  it("are found behind symbolic links, once", async () => {
    const path = await pictures({ "x/a.png": 1 });
    await symlink(path, join(path, "x/loop"));
    await symlink(join(path, "x/a.png"), join(path, "x/b.png"));
    await symlink(await pictures({ "c.png": 2 }), join(path, "x/other"));
    expect(await redsOf(await images(path))).toEqual([1, 1, 2]);
  });

  it("are taken at even distances for a limit", async () => {
    const path = await pictures(Object.fromEntries([0, 1, 2, 3, 4, 5].map((i) => [`${i}.png`, i])));
    expect(await redsOf(await images(path, { limit: 3 }))).toEqual([0, 2, 4]);
  });

  it("are named when they cannot be read", async () => {
    const path = await pictures({ "b.png": 1 }, { "a.png": "no picture" });
    await symlink(join(path, "gone.png"), join(path, "c.png"));
    const data = await images(path);
    expect(data.count).toBe(3);
    const message = (index: number) => messageOf(data.example(index));
    expect(await message(0)).toContain(`FormatError: ${path}/a.png cannot be read as a picture`);
    expect(await message(2)).toContain(`FormatError: Cannot read ${path}/c.png: there is no such`);
  });

  it.each([
    [{ "a.txt": "x" }, / holds no pictures, only a\.txt; give a folder/],
    [{}, / holds no pictures; give a folder with PNG, JPEG, WebP, AVIF or GIF files\.$/],
  ])("are reported as missing: %o", async (files, message) => {
    expect(await messageOf(images(await folderOf(files)))).toMatch(message);
  });

  it("are counted and named if they end in what is not read", async () => {
    const path = await pictures({ "a.png": 1 }, { "b.HEIC": "x", "c.tiff": "x", "notes.md": "x" });
    expect((await images(path)).survey!.notes).toEqual([
      `2 pictures in ${path} are left out, because they end in .heic, .tiff (the first is b.HEIC); convert them to PNG, JPEG, WebP, AVIF or GIF.`,
    ]);
  });

  it.skipIf(process.platform === "win32")("are no pipes and no devices", async () => {
    const path = await pictures({ "a.png": 1 });
    execFileSync("mkfifo", [join(path, "b.png")]);
    await symlink("/dev/zero", join(path, "c.png"));
    const data = await images(path);
    for (const index of [1, 2]) {
      expect(await messageOf(data.example(index))).toContain("it is a device or pipe");
    }
  });

  it("must be in an existing folder", async () => {
    const path = await pictures({ "a.png": 1 });
    expect(await messageOf(images(join(path, "none")))).toMatch(
      /^UsageError: Cannot open the folder .*none: there is no such file or folder/,
    );
    expect(await messageOf(images(join(path, "a.png")))).toMatch(
      /^UsageError: Cannot open the folder .*a\.png: a part of the path is a file/,
    );
  });
});

describe("subfolders", () => {
  it("are the classes of all files below them", async () => {
    const path = await pictures({ "dog/a.png": 1, "cat/b.png": 2, "cat/young/c.png": 3 });
    const data = await images(path);
    expect(data.classes).toEqual(["cat", "dog"]);
    expect((await examplesOf(data)).map(({ label }) => label)).toEqual([0, 0, 1]);
  });

  it("with numeric names are sorted by value", async () => {
    const path = await pictures({ "10/a.png": 1, "9/a.png": 2 });
    expect((await images(path)).classes).toEqual(["9", "10"]);
  });

  it("are not classes if there is only one, unless the config says so", async () => {
    const path = await pictures({ "all/a.png": 1 });
    expect((await images(path)).classes).toBeUndefined();
    expect((await images(path, { classes: true })).classes).toEqual(["all"]);
  });

  it("can be classes beside captions if the config says so", async () => {
    const path = await pictures({ "x/a.png": 1, "y/b.png": 2 }, { "x/a.txt": "A", "y/b.txt": "B" });
    expect((await images(path)).classes).toBeUndefined();
    const both = await images(path, { classes: true });
    expect(both.classes).toEqual(["x", "y"]);
    expect((await both.example(1)).captions).toEqual(["B"]);
  });

  it("are not classes if there are pictures outside of them", async () => {
    const path = await pictures({ "a.png": 0, "x/b.png": 1, "y/c.png": 2 });
    expect(await messageOf(images(path))).toMatch(
      /^UsageError: .* has pictures in its subfolders and outside of them.*; move a\.png and similar ones into them, or set `classes: false`\.$/,
    );
    expect(await messageOf(images(await pictures({ "a.png": 0 }), { classes: true }))).toContain(
      "has no subfolders with pictures, which `classes: true` asks for",
    );
  });

  it("that are splits of a data set are not mixed by mistake", async () => {
    const path = await pictures({ "train/cat/a.png": 1, "test/cat/b.png": 2 });
    expect(await messageOf(images(path))).toMatch(
      /^UsageError: .* is divided into test and train; set `path` to .*train or another/,
    );
    expect((await images(path, { classes: false })).count).toBe(2);
  });
});

describe("text files beside pictures", () => {
  it("have one caption per line", async () => {
    const path = await pictures(
      { "a.png": 1, "b.png": 2 },
      { "a.txt": "\ufeffa red dot\r\n\r\n the dot  \n", "b.txt": "two" },
    );
    expect(await captionsOf(path)).toEqual([["a red dot", "the dot"], ["two"]]);
    expect((await images(path)).captioned).toBe(true);
    expect((await images(path, { caption: false })).captioned).toBe(false);
  });

  it("must exist for all pictures, unless the config says otherwise", async () => {
    const path = await pictures({ "a.png": 1, "b.png": 2, "c.png": 3 }, { "b.txt": "two" });
    expect(await messageOf(images(path))).toMatch(
      /^UsageError: 2 of the 3 pictures in .* have no caption \(the first is a\.png\)/,
    );
    expect(await captionsOf(path, { undescribed: "skip" })).toEqual([["two"]]);
    expect(await captionsOf(path, { undescribed: "keep" })).toEqual([[], ["two"], []]);
  });

  it("must not be empty, and may end in .TXT", async () => {
    const path = await pictures({ "a.png": 1, "b.png": 2 }, { "a.TXT": "one", "b.txt": " \n" });
    expect(await messageOf(images(path))).toMatch(
      /^UsageError: 1 of the 2 pictures in .* has no caption \(the first is .*b\.png\)/,
    );
    expect(await captionsOf(path, { undescribed: "skip" })).toEqual([["one"]]);
  });

  it("belong to pictures whose names spell é in another way", async () => {
    const path = await pictures(
      { "cafe\u0301.png": 1, "b.png": 2 },
      { "b.txt": "two", "caf\u00e9.txt": "one" },
    );
    expect(await captionsOf(path)).toEqual([["two"], ["one"]]);
  });

  it.each([
    ["a.caption", "a.caption is not read"],
    ["a.json", "a.json is not read"],
    ["metadata.parquet", "metadata.parquet is not read"],
  ])("are told of if they are not read: %s", async (name, message) => {
    const data = await images(
      await pictures({ "a.png": 1, "b.png": 2 }, { [name]: "{}", "readme.md": "x" }),
    );
    expect(data.notes).toHaveLength(1);
    expect(data.notes![0]).toContain(message);
    expect(data.notes![0]).toContain("so the pictures in");
  });

  it("are named when they are not UTF-8", async () => {
    const path = await folderOf({ "a.png": await png(1), "a.txt": Uint8Array.from([0xff, 0x41]) });
    const data = await images(path);
    expect(await messageOf(data.example(0))).toContain("a.txt is not UTF-8 text");
  });
});

describe("metadata", () => {
  const rows = (...lines: object[]) => lines.map((line) => JSON.stringify(line)).join("\n");

  it("in JSON lines gives captions, several per picture in a list or in several rows", async () => {
    const path = await pictures(
      { "a.png": 1, "x/b.png": 2 },
      {
        "metadata.jsonl": rows(
          { file_name: "x/b.png", text: ["two", " "] },
          { file_name: "./a.png", text: "one" },
          { file_name: "x/b.png", text: "zwei" },
        ),
      },
    );
    expect(await captionsOf(path)).toEqual([["one"], ["two", "zwei"]]);
  });

  it("in CSV applies to its own folder and can name classes", async () => {
    const path = await pictures(
      { "x/a.png": 1, "x/b.png": 2 },
      { "x/metadata.csv": 'file_name,caption,label\na.png,"one, a",10\nb.png,two,9\n' },
    );
    const data = await images(path);
    expect(data.classes).toEqual(["9", "10"]);
    expect(await captionsOf(path)).toEqual([["one, a"], ["two"]]);
    expect(await labelsOf(path)).toEqual([1, 0]);
    expect((await images(path, { label: false })).classes).toBeUndefined();
    expect((await images(path, { caption: false })).captioned).toBe(false);
  });

  it("has priority over text files and subfolders", async () => {
    const path = await pictures(
      { "x/a.png": 1, "y/b.png": 2 },
      {
        "metadata.csv": "file_name,text\nx/a.png,one\ny/b.png,two\n",
        "x/a.txt": "not this",
      },
    );
    expect(await captionsOf(path)).toEqual([["one"], ["two"]]);
    expect((await images(path)).classes).toBeUndefined();
  });

  it("can name pictures with unusual extensions", async () => {
    const path = await folderOf({
      "a.picture": await png(7),
      "b.png": await png(8),
      "metadata.csv": "file_name,text\na.picture,seven\nb.png,eight\n",
    });
    expect(new Set(await redsOf(await images(path)))).toEqual(new Set([7, 8]));
  });

  it("names pictures that spell é in another way, and says which differ in case only", async () => {
    const path = await pictures(
      { "cafe\u0301.png": 7, "B.png": 8 },
      {
        "metadata.jsonl": rows(
          { file_name: "caf\u00e9.png", text: "one" },
          { file_name: "B.png", text: "two" },
        ),
      },
    );
    expect(await captionsOf(path)).toEqual([["two"], ["one"]]);
    const other = await pictures(
      { "B.PNG": 8 },
      { "metadata.jsonl": rows({ file_name: "b.png", text: "two" }) },
    );
    expect(await messageOf(images(other))).toContain('"b.png" on line 1 of');
    expect(await messageOf(images(other))).toContain('metadata.jsonl (there is "B.PNG"); add it');
  });

  const refused: readonly [string, string, object, RegExp][] = [
    [
      "pictures that are not there",
      "file_name,text\na.png,one\ngone.png,two\nx/lost.png,three\n",
      {},
      /^UsageError: The metadata names 2 pictures that do not exist: "gone\.png" on line 3 of .*metadata\.csv, "x\/lost\.png" on line 4/,
    ],
    [
      "no column of captions or labels",
      "file_name,txt\na.png,one\n",
      {},
      /^FormatError: .*metadata\.csv describes no pictures: its columns are "file_name", "txt", and none is called text, caption/,
    ],
    [
      "a column that is not there",
      "file_name,texte,n\na.png,one,2\n",
      { caption: "text" },
      /^UsageError: .*metadata\.csv has no column "text", which `caption` names; the nearest is "texte"\.$/,
    ],
    [
      "two columns that may be meant",
      "file_name,text,caption\na.png,one,two\n",
      {},
      /^UsageError: .* has the columns text and caption; say with `caption` which one to use, or `caption: false`/,
    ],
    [
      "no file names",
      "file,text\na.png,one\n",
      {},
      /^FormatError: .* has no column file_name.*; it has "file", "text"\.$/,
    ],
    [
      "files outside the folder",
      "file_name,text\n../a.png,one\n",
      {},
      /^FormatError: .*on line 2, file_name is "\.\.\/a\.png", which is outside the folder\.$/,
    ],
    ["a column twice", "file_name,text,text\na.png,1,2\n", {}, /has the column "text" twice/],
    [
      "two classes for a picture",
      "file_name,label\na.png,1\na.png,2\n",
      {},
      /^UsageError: .* says on line 3 that "a\.png" has the class "2", but before that the class "1"/,
    ],
  ];
  it.each(refused)("is refused with %s", async (_, csv, config, message) => {
    const path = await pictures({ "a.png": 1 }, { "metadata.csv": csv });
    expect(await messageOf(images(path, config))).toMatch(message);
  });

  it.each([
    ['{"file_name": "a.png", "text": 5}', "text is neither a string nor a list of strings"],
    ['{"file_name": "a.png", "label": 0.5}', "label is neither a string nor a whole number"],
    ['{"file_name": 5}', "file_name is not a string"],
    ["[1]", "the JSON is not an object"],
    ['{"file_name": ', "the JSON is not valid"],
  ])("is refused with the line %s", async (line, message) => {
    const path = await pictures({ "a.png": 1 }, { "metadata.jsonl": `\n${line}` });
    expect(await messageOf(images(path))).toMatch(
      new RegExp(`^FormatError: .*metadata\\.jsonl cannot be used: on line 2, ${message}`),
    );
  });

  it("is refused in two formats at once, and if pictures lack a label", async () => {
    const table = "file_name,label\na.png,x\n";
    const twice = { "metadata.csv": table, "metadata.jsonl": '{"file_name":"a.png"}' };
    expect(await messageOf(images(await pictures({ "a.png": 1 }, twice)))).toContain(
      "has both a metadata.csv and a metadata.jsonl",
    );
    const path = await pictures({ "a.png": 1, "b.png": 2 }, { "metadata.csv": table });
    expect(await messageOf(images(path))).toContain("1 of the 2 pictures");
    expect(await labelsOf(path, { undescribed: "keep" })).toEqual([0, undefined]);
  });
});
