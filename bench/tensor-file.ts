/**
 * The exchange of starting weights and data between the harness and all contenders: `tensors.json`
 * ({ name: { shape, offset } }, offsets in elements) beside `tensors.bin` (float32, little-endian), and the
 * numbers that define the work in `work.json`.
 */
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { sizeOf } from "../src/engine/arrays/ndarray.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";

export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

type Index = Record<string, { shape: readonly number[]; offset: number }>;

export async function writeTensors(
  dir: string,
  tensors: Iterable<readonly [string, HostTensor]> | AsyncIterable<readonly [string, HostTensor]>,
): Promise<void> {
  const index: Index = {};
  const file = openSync(join(dir, "tensors.bin"), "w");
  let offset = 0;
  for await (const [name, { shape, data }] of tensors) {
    index[name] = { shape, offset };
    writeSync(file, data);
    offset += data.length;
  }
  closeSync(file);
  writeFileSync(join(dir, "tensors.json"), JSON.stringify(index));
}

/** The numbers that define the work. */
export function readWork(dir: string): unknown {
  return JSON.parse(readFileSync(join(dir, "work.json"), "utf8"));
}

/** All tensors by name; the arrays are views of one buffer. */
export function readTensors(dir: string): Map<string, HostTensor> {
  const bytes = new Uint8Array(readFileSync(join(dir, "tensors.bin")));
  return new Map(
    Object.entries(readIndex(dir)).map(([name, { shape, offset }]) => {
      const data = new Float32Array(bytes.buffer, 4 * offset, sizeOf(shape));
      return [name, { shape, data }];
    }),
  );
}

/** Reads one tensor without the others. */
export function readTensor(dir: string, name: string): HostTensor {
  const { shape, offset } = readIndex(dir)[name]!;
  const data = new Float32Array(sizeOf(shape));
  const file = openSync(join(dir, "tensors.bin"), "r");
  readSync(file, data, { position: 4 * offset });
  closeSync(file);
  return { shape, data };
}

function readIndex(dir: string): Index {
  return JSON.parse(readFileSync(join(dir, "tensors.json"), "utf8")) as Index;
}

/** The tensors as weights that a program reads directly from `tensors.bin`. */
export function storedTensors(dir: string): WeightSource {
  const index = readIndex(dir);
  return (name) => {
    const entry = index[name];
    if (entry === undefined) return undefined;
    const { shape, offset } = entry;
    const length = 4 * sizeOf(shape);
    const path = join(dir, "tensors.bin");
    return { kind: "file", path, offset: 4 * offset, length, dtype: "float32", shape };
  };
}

/** A seeded source of standard normal numbers: mulberry32 with the Box-Muller transform. */
export function normalSource(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return (((bits ^ (bits >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** A tensor of `deviation` times the next standard normal numbers. */
export function normalTensor(
  normal: () => number,
  shape: readonly number[],
  deviation: number,
): HostTensor {
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = deviation * normal();
  return { shape, data };
}
