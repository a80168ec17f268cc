/**
 * The exchange of starting weights and data between the harness and all contenders: `tensors.json`
 * ({ name: { shape, offset } }, offsets in elements) beside `tensors.bin` (float32, little-endian), and the
 * numbers that define the work in `work.json`.
 */
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

type Index = Record<string, { shape: readonly number[]; offset: number }>;

export function writeTensors(dir: string, tensors: Iterable<readonly [string, HostTensor]>): void {
  const index: Index = {};
  const file = openSync(join(dir, "tensors.bin"), "w");
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
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
  const index = JSON.parse(readFileSync(join(dir, "tensors.json"), "utf8")) as Index;
  const bytes = new Uint8Array(readFileSync(join(dir, "tensors.bin")));
  return new Map(
    Object.entries(index).map(([name, { shape, offset }]) => {
      const size = shape.reduce((product, dim) => product * dim, 1);
      return [name, { shape, data: new Float32Array(bytes.buffer, 4 * offset, size) }];
    }),
  );
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
  const data = new Float32Array(shape.reduce((product, dim) => product * dim, 1));
  for (let i = 0; i < data.length; i++) data[i] = deviation * normal();
  return { shape, data };
}
