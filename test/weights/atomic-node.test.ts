import { execFileSync } from "node:child_process";
import fs from "node:fs";
import {
  chmod,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PatchwiseError } from "../../src/engine/errors.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "patchwise-atomic-"));
  path = join(folder, "m.bin");
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true, force: true });
});

const bytes = (text: string) => new TextEncoder().encode(text);
const messageOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "no error",
    (error: unknown) =>
      error instanceof PatchwiseError ? error.message : `not a PatchwiseError: ${String(error)}`,
  );

/** The prototype on which all file handles find their methods. */
async function fileHandles() {
  const handle = await open(folder, "r");
  await handle.close();
  return Object.getPrototypeOf(handle) as typeof handle;
}

function methodOf(prototype: object, name: string) {
  return Object.getOwnPropertyDescriptor(prototype, name)!.value as (...args: unknown[]) => unknown;
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made by the test`), { code });
}

describe("writeFileAtomic", () => {
  it("creates and replaces files from bytes, pieces, and asynchronous pieces", async () => {
    await writeFileAtomic(path, bytes("one"));
    expect(await readFile(path, "utf8")).toBe("one");
    await writeFileAtomic(path, [bytes("tw"), bytes(""), bytes("o")]);
    expect(await readFile(path, "utf8")).toBe("two");
    await writeFileAtomic(
      path,
      (async function* () {
        yield bytes("thr");
        yield bytes("ee");
      })(),
    );
    expect(await readFile(path, "utf8")).toBe("three");
    await writeFileAtomic(path, []);
    expect(await readFile(path, "utf8")).toBe("");
    expect(await readdir(folder)).toEqual(["m.bin"]);
  });

  it("shows readers the old file until the new one is complete", async () => {
    await writeFile(path, "old");
    const seen: string[] = [];
    await writeFileAtomic(
      path,
      (async function* () {
        yield bytes("ne");
        seen.push(await readFile(path, "utf8"));
        yield bytes("w");
        seen.push(await readFile(path, "utf8"));
      })(),
    );
    expect(seen).toEqual(["old", "old"]);
    expect(await readFile(path, "utf8")).toBe("new");
  });

  it("lets two writers of one file finish, one after the other", async () => {
    const texts = Array.from({ length: 8 }, (_, i) => String(i).repeat(100_000));
    await Promise.all(texts.map((text) => writeFileAtomic(path, bytes(text))));
    expect(texts).toContain(await readFile(path, "utf8"));
    expect(await readdir(folder)).toEqual(["m.bin"]);
  });

  it("flushes the file before the rename, and the folder after it", async () => {
    const order: string[] = [];
    const sync = fs.fsync;
    vi.spyOn(fs, "fsync").mockImplementation((fd, done) => {
      const kind = fs.fstatSync(fd).isDirectory() ? "folder" : "file";
      order.push(`${kind} with ${fs.readdirSync(folder).includes("m.bin") ? "new" : "no"} name`);
      sync(fd, done);
    });
    await writeFileAtomic(path, bytes("x"));
    expect(order).toEqual(["file with no name", "folder with new name"]);
  });

  it("keeps permissions of an existing file and follows symbolic links", async () => {
    const link = join(folder, "link");
    await writeFile(path, "old");
    await chmod(path, 0o600);
    await symlink("m.bin", link);
    await writeFileAtomic(link, bytes("new"));
    expect(await readFile(path, "utf8")).toBe("new");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await readdir(folder)).toSorted()).toEqual(["link", "m.bin"]);
  });

  it("rethrows errors of the producer, with the old file intact and no temporary file left", async () => {
    await writeFile(path, "old");
    const failing = (async function* () {
      yield bytes("half of the ");
      throw new TypeError("the device was lost");
    })();
    await expect(writeFileAtomic(path, failing)).rejects.toThrow(
      new TypeError("the device was lost"),
    );
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["m.bin"]);
  });

  it.each(["write", "sync"] as const)(
    "survives a full disk that is reported at %s",
    async (method) => {
      await writeFile(path, "old");
      const full = systemError("ENOSPC");
      if (method === "write") vi.spyOn(await fileHandles(), method).mockRejectedValueOnce(full);
      else vi.spyOn(fs, "fsync").mockImplementationOnce((_, done) => done(full));
      expect(await messageOf(writeFileAtomic(path, bytes("new")))).toBe(
        `Cannot write ${path} (the old file is unchanged): the disk is full; free some space and try again (ENOSPC).`,
      );
      expect(await readFile(path, "utf8")).toBe("old");
      expect(await readdir(folder)).toEqual(["m.bin"]);
    },
  );

  it("continues after a partial write", async () => {
    const handles = await fileHandles();
    const write = methodOf(handles, "write");
    const short = vi.spyOn(handles, "write").mockImplementation(function (
      this: typeof handles,
      ...[data, offset, length]: unknown[]
    ) {
      const part = Math.min(length as number, 3);
      return Reflect.apply(write, this, [data, offset, part]) as never;
    });
    await writeFileAtomic(path, bytes("0123456789"));
    expect(short).toHaveBeenCalledTimes(4);
    expect(await readFile(path, "utf8")).toBe("0123456789");
  });

  it("leaves nothing behind if the system's limit on file sizes is reached", async () => {
    await mkdir(join(folder, "out"));
    const target = join(folder, "out", "m.bin");
    await writeFile(target, "old");
    const message = await limited(target, 64);
    expect(message).toBe(
      `Cannot write ${target} (the old file is unchanged): the file would be larger than the file system or a limit allows (EFBIG).`,
    );
    expect(await readFile(target, "utf8")).toBe("old");
    expect(await readdir(join(folder, "out"))).toEqual(["m.bin"]);
  });

  it("explains why a path cannot be written", async () => {
    expect(await messageOf(writeFileAtomic(join(folder, "no", "m.bin"), bytes("x")))).toBe(
      `Cannot write ${join(folder, "no", "m.bin")} (nothing is left behind): there is no such file or folder; check the path (ENOENT).`,
    );
    await writeFile(path, "old");
    expect(await messageOf(writeFileAtomic(join(path, "m.bin"), bytes("x")))).toMatch(/ENOTDIR/);
  });

  it("replaces neither a folder nor a device", async () => {
    const message = (target: string) =>
      `Cannot write ${target}: something that is not a regular file has this name; choose another.`;
    expect(await messageOf(writeFileAtomic(folder, bytes("x")))).toBe(message(folder));
    expect(await messageOf(writeFileAtomic("/dev/null", bytes("x")))).toBe(message("/dev/null"));
    expect((await stat("/dev/null")).isCharacterDevice()).toBe(true);
  });
});

/** Writes 1 MB in a process whose files may not be longer than `kilobytes`; answers its error message. */
async function limited(target: string, kilobytes: number): Promise<string> {
  const script = join(folder, "write.mjs");
  const { build } = await import("esbuild");
  await build({
    stdin: {
      contents: `
        import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
        process.on("SIGXFSZ", () => {});
        await writeFileAtomic(process.argv[2], new Uint8Array(1e6)).catch((error) => console.log(error.message));
      `,
      resolveDir: import.meta.dirname,
    },
    bundle: true,
    platform: "node",
    format: "esm",
    outfile: script,
  });
  const command = 'ulimit -f "$1"; exec "$2" "$3" "$4"';
  const args = ["-c", command, "sh", String(kilobytes), process.execPath, script, target];
  return execFileSync("sh", args, { encoding: "utf8" }).trim();
}
