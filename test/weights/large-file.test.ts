import { execFile } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const SIZE = 4096;
const LAYERS = 16;

/** A checkpoint of LAYERS square matrices: a 1 in the corner of each, the rest a hole in the file. */
function writeCheckpoint(path: string, tag: "F32" | "BF16"): number {
  const elementBytes = tag === "F32" ? 4 : 2;
  const length = SIZE * SIZE * elementBytes;
  const header = JSON.stringify(
    Object.fromEntries(
      Array.from({ length: LAYERS }, (_, i) => [
        `layers.${i}.weight`,
        { dtype: tag, shape: [SIZE, SIZE], data_offsets: [i * length, (i + 1) * length] },
      ]),
    ),
  );
  const padded = Buffer.from(header.padEnd(Math.ceil(header.length / 8) * 8));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(padded.length));
  const corner = tag === "F32" ? new Float32Array([1]) : new Uint16Array([0x3f80]);
  const start = 8 + padded.length;
  const file = openSync(path, "w");
  writeSync(file, Buffer.concat([prefix, padded]));
  for (let i = 0; i < LAYERS; i++) writeSync(file, corner, 0, elementBytes, start + i * length);
  ftruncateSync(file, start + LAYERS * length);
  closeSync(file);
  return LAYERS * length;
}

interface Report {
  readonly growth: number;
  readonly first: number;
}

async function openInChild(
  tag: "F32" | "BF16",
  conversion = "once",
): Promise<Report & { fileBytes: number }> {
  const folder = mkdtempSync(join(tmpdir(), "patchwise-large-"));
  try {
    const path = join(folder, "model.safetensors");
    const fileBytes = writeCheckpoint(path, tag);
    const { stdout } = await promisify(execFile)(process.execPath, [
      "test/support/open-large.mjs",
      path,
      conversion,
    ]);
    return { ...(JSON.parse(stdout) as Report), fileBytes };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Each layer passes on its first element, through a tanh. */
function expectedOutput(): number {
  let value = 1;
  for (let i = 0; i < LAYERS; i++) value = Math.tanh(value);
  return value;
}

describe("a checkpoint of a gigabyte, used in place", () => {
  it("float32: memory grows by at most the size of the file plus 15 %", async () => {
    const { growth, fileBytes, first } = await openInChild("F32");
    expect(fileBytes).toBeGreaterThan(1e9);
    expect(growth).toBeLessThan(1.15 * fileBytes);
    expect(first / expectedOutput()).toBeCloseTo(1, 5);
  });

  it("bfloat16: memory grows by at most the converted size plus 1 %", async () => {
    const { growth, fileBytes, first } = await openInChild("BF16");
    expect(growth).toBeLessThan(1.01 * 2 * fileBytes);
    expect(first / expectedOutput()).toBeCloseTo(1, 5);
  });

  it("bfloat16, converted in each run: memory grows by at most the size of the file plus two layers", async () => {
    const { growth, fileBytes, first } = await openInChild("BF16", "each run");
    expect(growth).toBeLessThan(fileBytes + 2 * 4 * SIZE * SIZE);
    expect(first / expectedOutput()).toBeCloseTo(1, 5);
  });
});
