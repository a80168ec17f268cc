import { packTar, type TarEntry as PackedEntry } from "modern-tar";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { tarEntries } from "../../src/data/formats/tar.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { bytesSource } from "../../src/weights/sources/source.ts";
import { generator, mutateBytes } from "../weights/mutate.ts";
import { examplesOf, folderOf, messageOf, open, png, redsOf } from "./support.ts";

type Content = string | Uint8Array;

const encode = (text: string) => new TextEncoder().encode(text);

/** A tar archive of files, written by another implementation. */
async function tar(
  files: Record<string, Content>,
  others: PackedEntry[] = [],
): Promise<Uint8Array> {
  const entries = Object.entries(files).map(([name, content]): PackedEntry => {
    const body = typeof content === "string" ? encode(content) : content;
    return { header: { name, size: body.length }, body };
  });
  return packTar([...others, ...entries]);
}

const entriesOf = (bytes: Uint8Array) => tarEntries(bytesSource(bytes, "a.tar"));

/** The files by name, read through their offsets. */
async function contentsOf(bytes: Uint8Array): Promise<Record<string, string>> {
  const entries = await entriesOf(bytes);
  return Object.fromEntries(
    entries.map(({ name, offset, size }) => [
      name,
      new TextDecoder().decode(bytes.subarray(offset, offset + size)),
    ]),
  );
}

/** Writes a header's field anew, and the checksum that belongs to it. */
function patched(archive: Uint8Array, at: number, field: number, value: Uint8Array): Uint8Array {
  const copy = archive.slice();
  copy.set(value, at + field);
  copy.fill(0x20, at + 148, at + 156);
  const sum = copy.subarray(at, at + 512).reduce((a, b) => a + b, 0);
  copy.set(encode(`${sum.toString(8).padStart(6, "0")}\0 `), at + 148);
  return copy;
}

describe("tarEntries", () => {
  it("finds the bytes of each file and skips other entries", async () => {
    const files = { "a.txt": "one", "b/c.txt": "x".repeat(100_000), "empty.txt": "" };
    const archive = await tar(files, [
      { header: { name: "b/", size: 0, type: "directory" } },
      { header: { name: "link", size: 0, type: "symlink", linkname: "a.txt" } },
    ]);
    expect(await contentsOf(archive)).toEqual({ ...files, link: "one" });
  });

  it("takes links to files of the archive as files", async () => {
    const link = (name: string, type: "link" | "symlink", linkname: string): PackedEntry => ({
      header: { name, size: 0, type, linkname },
    });
    const long = `${"n".repeat(200)}.txt`;
    const archive = await tar({ "s/0.txt": "zero", [long]: "long" }, [
      link("s/1.txt", "link", "s/0.txt"),
      link("s/2.txt", "symlink", "1.txt"),
      link("t/3.txt", "symlink", "../s/0.txt"),
      link("4.txt", "link", long),
      link("out.txt", "symlink", "../../etc/passwd"),
      link("round.txt", "symlink", "round.txt"),
    ]);
    expect(await contentsOf(archive)).toEqual({
      "s/0.txt": "zero",
      [long]: "long",
      "s/1.txt": "zero",
      "s/2.txt": "zero",
      "t/3.txt": "zero",
      "4.txt": "long",
    });
  });

  it("reads archives that were joined, and refuses what is none behind the end mark", async () => {
    const [one, two] = [await tar({ "a.txt": "one" }), await tar({ "b.txt": "two" })];
    expect(await contentsOf(Buffer.concat([one, two]))).toEqual({ "a.txt": "one", "b.txt": "two" });
    const rest = Buffer.alloc(512, 7);
    expect(await messageOf(entriesOf(Buffer.concat([one, rest])))).toContain(
      "no archive follows the end mark",
    );
  });

  it("reads only headers and small files beside them", async () => {
    const archive = await tar({
      "a.bin": new Uint8Array(2 ** 22),
      "b.bin": new Uint8Array(2 ** 22),
    });
    const source = bytesSource(archive, "a.tar");
    let read = 0;
    const entries = await tarEntries({
      ...source,
      read: (offset, length) => {
        read += length;
        return source.read(offset, length);
      },
    });
    expect(entries.map(({ size }) => size)).toEqual([2 ** 22, 2 ** 22]);
    expect(read).toBeLessThan(2 ** 18);
  });

  it("supports long names: ustar's prefix, pax and GNU", async () => {
    const prefixed = `${"folder/".repeat(20)}a.txt`;
    const long = `${"ö".repeat(200)}.txt`;
    const files = { [prefixed]: "1", [long]: "2" };
    expect(await contentsOf(await tar(files))).toEqual(files);

    const name = `${"g".repeat(300)}.txt`;
    const archive = await tar({ "././@LongLink": `${name}\0`, cut: "3", "next.txt": "4" });
    const gnu = patched(archive, 0, 156, encode("L"));
    expect(await contentsOf(gnu)).toEqual({ [name]: "3", "next.txt": "4" });
  });

  it("supports binary sizes", async () => {
    const archive = await tar({ "a.txt": "abc" });
    const size = Uint8Array.from([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    expect(await contentsOf(patched(archive, 0, 124, size))).toEqual({ "a.txt": "abc" });
  });

  it("reads sizes from pax headers", async () => {
    const archive = await tar({ pax: "10 size=3\n", "a.txt": "abc" });
    const extended = patched(archive, 0, 156, encode("x"));
    const lying = patched(extended, 1024, 124, encode("00000000000\0"));
    expect(await contentsOf(lying)).toEqual({ "a.txt": "abc" });
  });

  it.each<[string, (archive: Uint8Array) => Uint8Array]>([
    ["the checksum of a header is wrong", (a) => a.map((byte, i) => (i === 3 ? byte ^ 1 : byte))],
    ["it ends without an end mark", (a) => a.subarray(0, 1024)],
    ["it ends without an end mark", (a) => a.subarray(0, 100)],
    ["a file of 3 bytes extends past the end", (a) => a.subarray(0, 514)],
    ["the size of a file is not a number", (a) => patched(a, 0, 124, encode("0000000000x\0"))],
    [
      "the size of a file is not a number",
      (a) => patched(a, 0, 124, new Uint8Array(12).fill(0xff)),
    ],
    ["an extended header is damaged", (a) => patched(a, 0, 156, encode("x"))],
    [
      "is compressed (gzip)",
      () => Uint8Array.from({ length: 512 }, (_, i) => [0x1f, 0x8b][i] ?? 7),
    ],
    ["is compressed (gzip)", (a) => gzipSync(a)],
    ["is compressed (zip)", () => encode("PK\u0003\u0004…")],
    ["is compressed (bzip2)", () => encode("BZh91AY")],
  ])("refuses an archive if %s", async (message, damage) => {
    const bytes = damage(await tar({ "a.txt": "abc" }));
    const answer = await messageOf(entriesOf(bytes));
    expect(answer).toMatch(/^FormatError: a\.tar is /);
    expect(answer).toContain(message);
  });

  it("parses any bytes or throws, and never reads outside the archive", async () => {
    const random = generator(11);
    const sound = await tar({ "a.txt": "abc", [`${"n".repeat(200)}.txt`]: "x", "b.txt": "y" });
    const outcomes = { read: 0, refused: 0 };
    for (let i = 0; i < 3000; i++) {
      const bytes = mutateBytes(random, mutateBytes(random, sound, sound), sound);
      try {
        for (const { offset, size } of await entriesOf(bytes)) {
          if (!(offset >= 0 && size >= 0 && offset + size <= bytes.length))
            throw new Error("range");
        }
        outcomes.read++;
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        outcomes.refused++;
      }
    }
    expect(outcomes.read).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });
});

describe("a WebDataset", () => {
  const openTar = (path: string, config: object = {}) =>
    open({ kind: "tar", path, undescribed: "keep", ...config });
  const archive = async (files: Record<string, Content>) =>
    `${await folderOf({ "a.tar": await tar(files) })}/a.tar`;
  const captionsOf = async (path: string, config: object = {}) =>
    (await examplesOf(await openTar(path, config))).map(({ captions }) => captions);

  it("groups files by their names up to the first dot", async () => {
    const path = await archive({
      "s/0.png": await png(1),
      "s/0.txt": "one\nuno",
      "s/0.cls": "2\n",
      "s/1.cls": "0",
      "s/1.txt": "two",
      "s/1.png": await png(2),
      "s/.DS_Store": "",
      README: "",
    });
    const data = await openTar(path);
    expect(data).toMatchObject({ count: 2, captioned: true, classes: ["0", "1", "2"] });
    const examples = await examplesOf(data);
    expect(examples.map(({ pixels, label, captions }) => [pixels[0], label, captions])).toEqual([
      [1, 2, ["one", "uno"]],
      [2, 0, ["two"]],
    ]);
    expect(data.nameOf(1)).toBe(`"s/1" in ${path}`);
    expect((await openTar(path, { classes: ["a", "b", "c"] })).classes).toEqual(["a", "b", "c"]);
    expect(await messageOf(openTar(path, { classes: ["a"] }))).toContain(
      "has the label 2, but `classes` has names for 1 classes only",
    );
    expect(await openTar(path, { label: false, caption: false })).toMatchObject({
      classes: undefined,
      captioned: false,
    });
  });

  it("reads captions from JSON fields", async () => {
    const path = await archive({
      "0.png": await png(1),
      "0.json": '{"caption": ["a", "b"], "title": "c"}',
      "1.png": await png(2),
      "1.json": "{}",
    });
    expect(await captionsOf(path)).toEqual([["a", "b"], []]);
    expect(await captionsOf(path, { caption: "title" })).toEqual([["c"], []]);
    expect(await messageOf(openTar(path, { caption: "titel" }))).toMatch(
      /^UsageError: "0\.json" in .* has no column "titel".*; the nearest is "title"\.$/,
    );
  });

  it("is refused if a caption is missing or empty, unless the config says otherwise", async () => {
    const path = await archive({
      "0.png": await png(1),
      "0.txt": "one",
      "1.png": await png(2),
      "1.txt": " \n",
      "2.png": await png(3),
    });
    expect(await messageOf(openTar(path, { undescribed: "refuse" }))).toMatch(
      /^UsageError: 2 of the 3 pictures in .* have no caption \(the first is "1" in /,
    );
    expect(await redsOf(await openTar(path, { undescribed: "skip" }))).toEqual([1]);
  });

  it("joins files whose names spell é in two ways", async () => {
    const path = await archive({ "caf\u00e9.png": await png(1), "cafe\u0301.txt": "one" });
    const data = await openTar(path);
    expect((await examplesOf(data)).map(({ captions }) => captions)).toEqual([["one"]]);
  });

  it("tells of files beside pictures that are not read", async () => {
    const path = await archive({ "0.png": await png(1), "0.caption": "one", "0.npy": "x" });
    expect((await openTar(path)).notes).toEqual([
      expect.stringMatching(
        /^The \.caption files in .* are not read, so its pictures have no captions/,
      ),
    ]);
  });

  it("supports several pictures per sample", async () => {
    const path = await archive({ "0.input.png": await png(1), "0.target.png": await png(2) });
    expect(await redsOf(await openTar(path, { image: "target.png" }))).toEqual([2]);
    expect(await messageOf(openTar(path))).toMatch(
      /^UsageError: .* holds no pictures that end in \.png, .*, only "input\.png", "target\.png"; set `image` to their extension/,
    );
  });

  it("is refused if a sample has a picture and its mask, until the config says which to use", async () => {
    const path = await archive({
      "0.jpg": await png(1),
      "0.png": await png(2),
      "1.png": await png(3),
    });
    expect(await messageOf(openTar(path))).toMatch(
      /^UsageError: "0" in .* has several pictures \(png, jpg\), .*; say with `image` which ending to use\.$/,
    );
    expect(await redsOf(await openTar(path, { image: "jpg", limit: 1 }))).toEqual([1]);
  });

  it("supports shards of one or several splits", async () => {
    const [one, two, three] = await Promise.all(
      [1, 2, 3].map(async (red) => tar({ "0.png": await png(red) })),
    );
    const numbered = await folderOf({ "0001.tar": two!, "0000.tar": one!, "x.txt": "" });
    expect(await redsOf(await openTar(numbered))).toEqual([1, 2]);
    const split = await folderOf({
      "train-0001.tar": two!,
      "train-0000.tar": one!,
      "test/0.tar": three!,
    });
    expect(await redsOf(await openTar(split, { split: "train" }))).toEqual([1, 2]);
    expect(await redsOf(await openTar(split, { split: "test" }))).toEqual([3]);
    expect(await messageOf(openTar(split))).toContain(
      "has the splits test, train; say with `split` which one to use",
    );
    expect(await messageOf(openTar(split, { split: "trian" }))).toContain(
      'has no split "trian"; there are "train"',
    );
    expect(await messageOf(openTar(`${split}/test/0.tar`, { split: "test" }))).toContain(
      "is a single file",
    );
    expect(await messageOf(openTar(await folderOf()))).toContain("holds no .tar files");
    const upper = await folderOf({ "0.TAR": one!, "1.tar": two! });
    expect(await redsOf(await openTar(upper))).toEqual([1, 2]);
    const packed = await folderOf({ "0.tar": one!, "1.tar.gz": "x", "0.tar.idx": "x" });
    expect(await messageOf(openTar(packed))).toMatch(
      /holds compressed or unfinished files, such as 1\.tar\.gz/,
    );
    expect(await messageOf(openTar(`${split}/none.tar`))).toMatch(/^UsageError: Cannot open/);
  });

  it("names samples that cannot be read", async () => {
    const path = await archive({
      "0.png": await png(1),
      "1.txt": "no picture",
      "2.png": "damaged",
      "3.png": await png(3),
      "3.txt": Uint8Array.from([0xff]),
    });
    const data = await openTar(path);
    const messages = await Promise.all([1, 2, 3].map((i) => messageOf(data.example(i))));
    expect(messages[0]).toBe(`FormatError: "1" in ${path} has no picture.`);
    expect(messages[1]).toContain(`FormatError: "2" in ${path} cannot be read as a picture`);
    expect(messages[2]).toBe(`FormatError: "3" in ${path}: its .txt is not UTF-8 text.`);
    expect((await data.example(0)).captions).toEqual([]);
  });

  it.each<[string, Record<string, Content>, object]>([
    ["its .cls holds", { "0.png": "x", "0.cls": "cat" }, {}],
    ["its .json is damaged", { "0.png": "x", "0.json": "{" }, {}],
    ["its .json is not an object", { "0.png": "x", "0.json": "[]" }, {}],
    ["has no .json files", { "0.png": "x" }, { caption: "text" }],
  ])("is refused if %s", async (message, files, config) => {
    expect(await messageOf(openTar(await archive(files), config))).toContain(message);
  });

  it("is refused with a duplicate file, or as a Git LFS pointer", async () => {
    const twice = await packTar(
      ["0.txt", "0.TXT"].map((name) => ({ header: { name, size: 1 }, body: "x" })),
    );
    const pointer = "version https://git-lfs.github.com/spec/v1\n";
    const path = await folderOf({ "twice.tar": twice, "pointer.tar": pointer });
    expect(await messageOf(openTar(`${path}/twice.tar`))).toContain('has the file "0.TXT" twice');
    expect(await messageOf(openTar(`${path}/pointer.tar`))).toContain("git lfs pull");
  });
});
