/** Checkpoints of which only names and shapes matter. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { bytesSource } from "../../src/weights/index.ts";
import { type Weights, weightsOf } from "../../src/weights/safetensors/safetensors.ts";

const keys = path.resolve(import.meta.dirname, "../fixtures/keys");

/** The keys and shapes of a published model. */
export function publishedShapes(name: string): Record<string, number[]> {
  return JSON.parse(readFileSync(path.join(keys, `${name}.json`), "utf8")) as Record<
    string,
    number[]
  >;
}

/** A file of such tensors, none of which can be read. */
export function shapedWeights(shapes: Readonly<Record<string, readonly number[]>>): Weights {
  const source = bytesSource(new Uint8Array(0), "file");
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const place = { source, offset: 0, length: 0, aligned: true };
    return [name, { name, tag: "F32", dtype: "float32", shape, ...place }] as const;
  });
  return weightsOf("file", new Map(), new Map(entries), async () => {});
}

/** The shapes without some of them. */
export function without(
  shapes: Readonly<Record<string, number[]>>,
  ...names: readonly string[]
): Record<string, number[]> {
  return Object.fromEntries(Object.entries(shapes).filter(([name]) => !names.includes(name)));
}
