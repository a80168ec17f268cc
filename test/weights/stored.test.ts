import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { sliceRows } from "../../src/engine/runtime/stored-weight.ts";
import { openGGUF } from "../../src/weights/gguf/gguf.ts";
import {
  type ByteSource,
  bytesSource,
  openSafetensors,
  safetensorsBytes,
} from "../../src/weights/index.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { storedWeights } from "../../src/weights/stored.ts";

const folder = mkdtempSync(join(tmpdir(), "patchwise-stored-"));
afterAll(() => rmSync(folder, { recursive: true }));

const values = (size: number, seed: number) =>
  Array.from({ length: size }, (_, i) => Math.sin(1.7 * i + seed));
const matrix = (dtype: NdArray["dtype"], seed: number) =>
  castArray(ndarray("float32", [4, 4], values(16, seed)), dtype);

const layers = {
  "unused.bytes": ndarray("uint8", [3], [1, 2, 3]),
  "a.weight": matrix("float32", 1),
  "b.weight": matrix("float16", 2),
  "c.weight": matrix("bfloat16", 3),
};

const x = input("x", [2, 4]);
const chain = ["a", "b", "c"].reduce(
  (y, name) => y.linear(parameter(`${name}.weight`, [4, 4])).tanh(),
  x,
);
const graph = graphOf({ y: chain });
const given = { x: ndarray("float32", [2, 4], values(8, 0)) };
const expected = toNumbers(
  evaluate(graph, {
    ...given,
    ...Object.fromEntries(
      ["a.weight", "b.weight", "c.weight"].map((name) => [
        name,
        castArray(layers[name as keyof typeof layers], "float32"),
      ]),
    ),
  })["y"]!,
);

/** Largest difference from what the reference computes with the same values. */
async function errorOf(path: string): Promise<number> {
  const weights = await openSafetensorsFile(path);
  const program = await nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
  const { y } = await program.run(given);
  await program.dispose();
  await weights.close();
  return Math.max(...toNumbers(y!).map((value, i) => Math.abs(value - expected[i]!)));
}

/** A source whose bytes are neither in a file nor in memory, as behind a URL, and the ranges that were read of it. */
function remote(bytes: Uint8Array) {
  const asked: number[] = [];
  const whole = bytesSource(bytes, "remote");
  const source: ByteSource = {
    name: "remote",
    size: whole.size,
    read(offset, length) {
      asked.push(length);
      return whole.read(offset, length);
    },
  };
  return { source, asked };
}

describe("weights that are fetched", () => {
  it("are read when a program is compiled, each tensor by itself", async () => {
    const { source, asked } = remote(safetensorsBytes(Object.entries(layers)));
    const weights = storedWeights(await openSafetensors(source));
    asked.splice(0);
    const program = await nodeBackend("cpu").compile(graph, { weights });
    expect(asked).toEqual([64, 32, 32]);
    const { y } = await program.run(given);
    await program.dispose();
    const apart = toNumbers(y!).map((value, i) => Math.abs(value - expected[i]!));
    expect(Math.max(...apart)).toBeLessThan(1e-5);
    const rows = await readStored(sliceRows(weights("a.weight")!, 0, 1, 2));
    expect(toNumbers(rows)).toEqual(toNumbers(layers["a.weight"]).slice(4, 12));
  });

  it("may be blocks of a GGUF file", async () => {
    const file = join(import.meta.dirname, "../fixtures/gguf/model.gguf");
    const onDisk = await openSafetensorsFile(file);
    const fetched = await openGGUF(remote(readFileSync(file)).source);
    for (const [name, { blocks }] of fetched.entries) {
      if (!blocks) continue;
      const [here, there] = [onDisk, fetched].map((weights) => storedWeights(weights)(name)!);
      expect(await readStored(there!)).toEqual(await readStored(here!));
    }
    await onDisk.close();
  });
});

describe("weights used in place", () => {
  it("run in float32, float16 and bfloat16 from one file", async () => {
    const path = join(folder, "model.safetensors");
    await writeSafetensors(path, Object.entries(layers));
    expect(await errorOf(path)).toBeLessThan(1e-6);
  });

  it("run from shards that are symbolic links, as in the Hugging Face cache", async () => {
    const [blobs, snapshot] = [join(folder, "blobs"), join(folder, "snapshots", "main")];
    mkdirSync(blobs);
    mkdirSync(snapshot, { recursive: true });
    const weightMap: Record<string, string> = {};
    for (const [i, [name, array]] of Object.entries(layers).entries()) {
      const file = `model-${i}.safetensors`;
      await writeSafetensors(join(blobs, `blob${i}`), [[name, array]]);
      symlinkSync(join(blobs, `blob${i}`), join(snapshot, file));
      weightMap[name] = file;
    }
    const index = join(snapshot, "model.safetensors.index.json");
    writeFileSync(index, JSON.stringify({ metadata: {}, weight_map: weightMap }));
    expect(await errorOf(index)).toBeLessThan(1e-6);
  });

  it("must have the shape that the model expects", async () => {
    const path = join(folder, "other.safetensors");
    const changed = { ...layers, "a.weight": ndarray("float32", [4, 5], values(20, 1)) };
    await writeSafetensors(path, Object.entries(changed));
    const weights = await openSafetensorsFile(path);
    const compiled = nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
    await expect(compiled).rejects.toThrow(
      "The stored weight a.weight is [4, 5], the model expects [4, 4].",
    );
    await weights.close();
  });
});
