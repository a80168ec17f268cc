import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { encodePicture } from "../../src/pictures/file-node.ts";
import { FormatError, PatchwiseError } from "../../src/engine/errors.ts";
import { crc32c, openMetrics, tfRecord } from "../../src/training/run/metrics-node.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "patchwise-metrics-"));
  vi.useFakeTimers({ toFake: ["Date"], now: 1_700_000_000_500 });
});
afterEach(async () => {
  vi.useRealTimers();
  await rm(folder, { recursive: true, force: true });
});

const lines = async () =>
  (await readFile(join(folder, "metrics.jsonl"), "utf8"))
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, number | null>);
const eventFiles = async () =>
  (await readdir(folder)).filter((name) => name.includes("tfevents")).toSorted();

/** The bits of a polynomial division, one after the other: slow, and nothing like the table. */
function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}

/** Undoes the mask, to compare with the plain checksum. */
function unmasked(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated << 15) | (rotated >>> 17)) >>> 0;
}

function records(file: Uint8Array): Uint8Array[] {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const found: Uint8Array[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(view.getBigUint64(at, true));
    const data = file.subarray(at + 12, at + 12 + length);
    const sums = [view.getUint32(at + 8, true), view.getUint32(at + 12 + length, true)];
    expect(sums.map(unmasked)).toEqual([slowCrc32c(file.subarray(at, at + 8)), slowCrc32c(data)]);
    found.push(data);
    at += 16 + length;
  }
  return found;
}

type Fields = Record<number, (number | Uint8Array)[]>;

/** Any protocol buffer: values of 64 and 32 bits as floating point numbers. */
function fields(message: Uint8Array): Fields {
  const reader = new BinaryReader(message);
  const found: Fields = {};
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    const values = (found[tag >>> 3] ??= []);
    if ((tag & 7) === 0) values.push(Number(reader.int64()));
    else if ((tag & 7) === 1) values.push(reader.double());
    else if ((tag & 7) === 2) values.push(reader.bytes());
    else values.push(reader.float());
  }
  return found;
}

const text = (bytes: number | Uint8Array | undefined) =>
  Buffer.from(bytes as Uint8Array).toString();
const inner = (of: Fields, field: number) =>
  (of[field] ?? []).map((value) => fields(value as Uint8Array));

async function events(name: string): Promise<Fields[]> {
  return records(await readFile(join(folder, name))).map(fields);
}

const picture = {
  width: 5,
  height: 3,
  channels: 3,
  pixels: Uint8Array.from({ length: 45 }, (_, i) => 5 * i),
} as const;

describe("crc32c", () => {
  it("gives the checksums of RFC 3720, B.4", () => {
    const rising = Uint8Array.from({ length: 32 }, (_, i) => i);
    const read = Uint8Array.from(
      "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
        .replaceAll(" ", "")
        .match(/../g)!,
      (hex) => Number.parseInt(hex, 16),
    );
    expect(
      [
        new Uint8Array(32),
        new Uint8Array(32).fill(255),
        rising,
        rising.toReversed(),
        read,
        new Uint8Array(0),
        new TextEncoder().encode("123456789"),
      ].map(crc32c),
    ).toEqual([0x8a9136aa, 0x62a8ab43, 0x46dd794e, 0x113fdb5c, 0xd9963a56, 0, 0xe3069283]);
  });
});

describe("tfRecord", () => {
  it("frames data as TensorBoard does", () => {
    const frame = tfRecord(new TextEncoder().encode("hello"));
    // As the RecordWriter of TensorBoard 2.21 writes it.
    expect(Buffer.from(frame).toString("hex")).toBe("0500000000000000eab2043e68656c6c6fbb1f1c19");
    expect(records(frame).map(text)).toEqual(["hello"]);
    expect(records(tfRecord(new Uint8Array(0)))).toEqual([new Uint8Array(0)]);
  });
});

describe("openMetrics", () => {
  it("writes a line per call, with null for NaN and infinity", async () => {
    const metrics = await openMetrics(folder);
    await metrics.log(20, { loss: 0.5, rate: 1e-3 });
    await metrics.log(40, { loss: NaN, rate: Infinity });
    await metrics.close();
    expect(await readFile(join(folder, "metrics.jsonl"), "utf8")).toBe(
      '{"step":20,"time":1700000000.5,"loss":0.5,"rate":0.001}\n{"step":40,"time":1700000000.5,"loss":null,"rate":null}\n',
    );
  });

  it("writes scalars and images for TensorBoard", async () => {
    const png = await encodePicture(picture, { format: "png" });
    const metrics = await openMetrics(folder);
    await metrics.log(20, { loss: 0.5, größe: -3 });
    await metrics.image(2 ** 40, "samples", png);
    await metrics.close();
    expect(await eventFiles()).toEqual(["events.out.tfevents.1700000000.patchwise"]);
    const [version, start, scalars, image, ...others] = await events(
      "events.out.tfevents.1700000000.patchwise",
    );
    expect(others).toEqual([]);
    expect([version, start, scalars, image].map((event) => event![1])).toEqual(
      Array.from({ length: 4 }, () => [1_700_000_000.5]),
    );
    expect(text(version![3]![0])).toBe("brain.Event:2");
    expect([start![2], inner(start!, 7)]).toEqual([[1], [{ 1: [1] }]]);
    expect(scalars![2]).toEqual([20]);
    const values = inner(inner(scalars!, 5)[0]!, 1);
    expect(values.map((value) => [text(value[1]![0]), value[2]])).toEqual([
      ["loss", [0.5]],
      ["größe", [-3]],
    ]);
    expect(image![2]).toEqual([2 ** 40]);
    const [shown] = inner(inner(image!, 5)[0]!, 1);
    expect(text(shown![1]![0])).toBe("samples");
    const [shape] = inner(shown!, 4);
    expect([shape![1], shape![2], shape![3]]).toEqual([[3], [5], [3]]);
    expect(Buffer.from(shape![4]![0] as Uint8Array).equals(png)).toBe(true);
  });

  it("resumes after a step, and removes later lines", async () => {
    const first = await openMetrics(folder);
    for (const step of [20, 40, 60, 80]) await first.log(step, { loss: step });
    await first.close();
    await appendFile(join(folder, "metrics.jsonl"), '{"step": 20, "ti');
    const second = await openMetrics(folder, { resumeFrom: 40 });
    await second.log(60, { loss: 61 });
    await second.close();
    expect((await lines()).map(({ step, loss }) => [step, loss])).toEqual([
      [20, 20],
      [40, 40],
      [60, 61],
    ]);
    // In the same second, and yet behind the first.
    const names = await eventFiles();
    expect(names).toEqual([
      "events.out.tfevents.1700000000.patchwise",
      "events.out.tfevents.1700000001.patchwise",
    ]);
    // TensorBoard drops what it knows of the step of START and of later ones.
    const [, start] = await events(names[1]!);
    expect([start![2], inner(start!, 7)]).toEqual([[41], [{ 1: [1] }]]);
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("starts over if nothing was saved before the interruption", async () => {
    const first = await openMetrics(folder);
    await first.log(1, { loss: 1 });
    await first.close();
    await (await openMetrics(folder, { resumeFrom: undefined })).close();
    expect(await lines()).toEqual([]);
  });

  it("accepts an incomplete last line, but no invalid line before lines that are kept", async () => {
    const path = join(folder, "metrics.jsonl");
    const sound = '{"step":20,"time":1,"loss":1}\n';
    for (const rest of ["", "{", '{"step":3', "\0\0\0", "null\n", "\0\n{}\n", '{"step":"1"}\n']) {
      await writeFile(path, sound + rest);
      await (await openMetrics(folder, { resumeFrom: 20 })).close();
      expect(await readFile(path, "utf8")).toBe(sound);
    }
    await writeFile(path, `${sound}oops\n${sound}`);
    await expect(openMetrics(folder, { resumeFrom: 20 })).rejects.toThrow(
      new FormatError(
        `Line 2 of ${path} is not a JSON object with a step; correct or remove it, then resume.`,
      ),
    );
    expect(await readFile(path, "utf8")).toBe(`${sound}oops\n${sound}`);
    // What comes after the step goes anyway.
    await (await openMetrics(folder, { resumeFrom: 10 })).close();
    expect(await readFile(path, "utf8")).toBe("");
  });

  it("names a folder that cannot be written", async () => {
    const path = join(folder, "none", "metrics.jsonl");
    await expect(openMetrics(join(folder, "none"))).rejects.toThrow(
      new PatchwiseError(
        `Cannot write ${path}: there is no such file or folder; check the path (ENOENT).`,
      ),
    );
  });
});
