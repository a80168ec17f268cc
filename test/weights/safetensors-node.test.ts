import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FormatError, PatchwiseError } from "../../src/engine/errors.ts";
import { ndarray, toNumbers, zeros } from "../../src/engine/arrays/ndarray.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { fileSource } from "../../src/weights/sources/file-node.ts";
import { fileOf } from "./build.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "patchwise-weights-"));
  path = join(folder, "m.safetensors");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const tensors = [
  ["a", ndarray("int64", [2, 2], [1, 2, 3, -4])],
  ["b.weight", ndarray("bfloat16", [3], [1, -0.5, 3])],
] as const;

describe("writeSafetensors", () => {
  it("writes the same bytes as safetensorsBytes", async () => {
    await writeSafetensors(path, tensors, [["format", "pt"]]);
    expect(new Uint8Array(await readFile(path))).toEqual(
      safetensorsBytes(tensors, [["format", "pt"]]),
    );
    expect(await readdir(folder)).toEqual(["m.safetensors"]);
  });

  it("leaves the old file unchanged if a tensor does not fit", async () => {
    await writeSafetensors(path, tensors);
    const broken = { ...zeros("float32", [3]), shape: [4] };
    await expect(writeSafetensors(path, [["x", broken]])).rejects.toThrow(/needs 4 elements/);
    const weights = await openSafetensorsFile(path);
    expect(toNumbers(await weights.read("a"))).toEqual([1, 2, 3, -4]);
    await weights.close();
  });
});

describe("openSafetensorsFile", () => {
  it("reads tensors and gives their path and byte range", async () => {
    await writeSafetensors(path, tensors);
    const weights = await openSafetensorsFile(path);
    expect(toNumbers(await weights.read("b.weight"))).toEqual([1, -0.5, 3]);
    const { source, offset, length } = weights.entries.get("b.weight")!;
    expect(source.path).toBe(path);
    const file = await readFile(path);
    expect(file.readUInt16LE(offset)).toBe(0x3f80);
    expect(offset + length).toBe(file.length);
    await weights.close();
    await expect(weights.read("a")).rejects.toThrow(PatchwiseError);
  });

  it("reads from a file above 4 GiB without reading the rest", async () => {
    const size = 2 ** 32 + 2 ** 20;
    const header = `{"big":{"dtype":"U8","shape":[${size}],"data_offsets":[0,${size}]},"last":{"dtype":"F32","shape":[2],"data_offsets":[${size},${size + 8}]}}`;
    const start = fileOf(header);
    await writeFile(path, start);
    await truncate(path, start.length + size + 8);
    const handle = await open(path, "r+");
    await handle.write(new Uint8Array(Float32Array.of(1.5, -2).buffer), 0, 8, start.length + size);
    await handle.close();
    const weights = await openSafetensorsFile(path);
    expect(toNumbers(await weights.read("last"))).toEqual([1.5, -2]);
    await weights.close();
  });

  it("opens the shards beside an index", async () => {
    await writeSafetensors(join(folder, "m-1.safetensors"), [tensors[0]]);
    await writeSafetensors(join(folder, "m-2.safetensors"), [tensors[1]]);
    const index = join(folder, "m.safetensors.index.json");
    const weight_map = { a: "m-1.safetensors", "b.weight": "m-2.safetensors" };
    await writeFile(index, JSON.stringify({ weight_map }));
    const weights = await openSafetensorsFile(index);
    expect(toNumbers(await weights.read("a"))).toEqual([1, 2, 3, -4]);
    expect(weights.entries.get("b.weight")!.source.path).toBe(join(folder, "m-2.safetensors"));
    await weights.close();

    await rm(join(folder, "m-2.safetensors"));
    await expect(openSafetensorsFile(index)).rejects.toThrow(
      `${index}: the shard "m-2.safetensors" cannot be opened: Cannot open ${join(folder, "m-2.safetensors")}: there is no such file or folder; check the path (ENOENT).`,
    );
  });

  it("leaves no descriptor open for any content", async () => {
    const openFiles = async () =>
      existsSync("/proc/self/fd") ? (await readdir("/proc/self/fd")).length : 0;
    const before = await openFiles();
    await writeFile(path, fileOf("{}").subarray(0, 9));
    await expect(openSafetensorsFile(path)).rejects.toThrow(FormatError);
    const index = join(folder, "i.json");
    await writeFile(index, '{"weight_map":{"a":"m.safetensors"}}');
    await expect(openSafetensorsFile(index)).rejects.toThrow(FormatError);
    await writeSafetensors(path, tensors);
    await (await openSafetensorsFile(path)).close();
    await (await openSafetensorsFile(index)).close();
    await expect(openSafetensorsFile(folder)).rejects.toThrow(PatchwiseError);
    expect(await openFiles()).toBe(before);
  });
});

describe("fileSource", () => {
  it("explains why a file cannot be opened", async () => {
    await expect(fileSource(join(folder, "none"))).rejects.toThrow(
      `Cannot open ${join(folder, "none")}: there is no such file or folder; check the path (ENOENT).`,
    );
    await expect(fileSource(folder)).rejects.toThrow(
      `Cannot open ${folder}: it is a folder, not a file; name a file.`,
    );
    await expect(fileSource("/dev/zero")).rejects.toThrow(
      "Cannot open /dev/zero: it is a device or pipe, not a file; name a file.",
    );
  });

  it("does not wait for a writer of a pipe", async () => {
    const pipe = join(folder, "pipe");
    execFileSync("sh", ["-c", 'mkfifo "$1"', "sh", pipe]);
    await expect(fileSource(pipe)).rejects.toThrow(/it is a device or pipe/);
  });

  it("notices a file that became shorter", async () => {
    await writeFile(path, new Uint8Array(100));
    const source = await fileSource(path);
    await truncate(path, 50);
    await expect(source.read(40, 20)).rejects.toThrow(
      `${path}: the file ended at byte 50, but it had 100 bytes when it was opened; open it again once it is no longer being written.`,
    );
    await source.close?.();
  });

  it("opens a relative path and remembers the absolute one", async () => {
    const fixture = fileURLToPath(new URL("../fixtures/torch_rng/io.safetensors", import.meta.url));
    const source = await fileSource("test/fixtures/torch_rng/io.safetensors");
    expect(source.path).toBe(fixture);
    await source.close?.();
  });
});
