import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { ggufChunks, type GGUFMetadata } from "../../src/weights/gguf/write.ts";
import { openGGUF } from "../../src/weights/gguf/gguf.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { readFloat32, type Weights } from "../../src/weights/safetensors/safetensors.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { bytesSource } from "../../src/weights/sources/source.ts";
import { isInPlace } from "../../src/engine/runtime/stored-weight.ts";
import { storedWeights } from "../../src/weights/stored.ts";
import { joinRows, splitRows, swapHalves } from "../../src/weights/views.ts";

const folder = path.resolve(import.meta.dirname, "../fixtures/gguf");
const file = path.join(folder, "model.gguf");
/** Made by gguf-py of llama.cpp: IQ4_NL and IQ4_XS. */
const uneven = path.resolve(import.meta.dirname, "../fixtures/gguf_iq4");
const bytes = new Uint8Array(readFileSync(file));
const open = (of: Uint8Array<ArrayBuffer>) => openGGUF(bytesSource(of, "model.gguf"));

/** The file with a number of 32 bits changed. */
function changed(at: number, value: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(bytes);
  new DataView(copy.buffer).setUint32(at, value, true);
  return copy;
}

/** Where the description of a tensor begins: the length of its name, then the name. */
function describedAt(name: string): number {
  const at = Buffer.from(bytes).indexOf(name) - 8;
  expect(at).toBeGreaterThan(0);
  return at;
}
/** Where the number of axes stands, behind the name. */
const axesAt = (name: string) => describedAt(name) + 8 + name.length;

describe("GGUF", () => {
  it.each([
    [folder, 19],
    [uneven, 3],
  ])("is read exactly, every type of it: %s", async (recorded, count) => {
    const report = await withRecording(recorded, (recording) =>
      verifyRecording(recording, () => Promise.reject(new Error("no runtime is needed"))),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs).toHaveLength(count);
  });

  it("has metadata as text, whole numbers exactly", async () => {
    const { metadata } = await open(bytes);
    expect(metadata.get("general.name")).toBe("tiny – größe 小さい");
    expect(metadata.get("test.u64")).toBe("9007199254740993");
    expect(metadata.get("test.i64")).toBe("-9007199254740995");
    expect(metadata.get("test.nested")).toBe('[[1,2],["x"]]');
    expect(metadata.get("test.bool")).toBe("true");
  });

  it.each<[string, Uint8Array<ArrayBuffer>, string]>([
    [
      "another format",
      new Uint8Array(40),
      "this is not a GGUF file, which begins with the letters",
    ],
    [
      "a web page",
      new TextEncoder().encode("<!DOCTYPE html><html></html>"),
      "this is not a GGUF file but a web page, perhaps an error or a login page; download the file",
    ],
    [
      "safetensors",
      safetensorsBytes([["a", ndarray("float32", [1], [0])]]),
      "this is not a GGUF file but a safetensors file; rename it so that its name ends in .safetens",
    ],
    ["version 1", changed(4, 1), "is a GGUF file of version 1, but only 2 and 3 can be read"],
    ["another byte order", changed(4, 3 << 24), "is a GGUF file of version 50331648"],
    ["an unknown type", changed(axesAt("bias") + 12, 99), 'the tensor "bias" has the type 99'],
    [
      "an unsupported type",
      changed(axesAt("bias") + 12, 16),
      "the type IQ2_XXS, which cannot be read",
    ],
    ["five axes", changed(axesAt("bias"), 5), "has 5 axes, but GGUF allows 4"],
    ["too many tensors", changed(8, 1 << 30), "the number of tensors is 1073741824, for which"],
    [
      "an endless name",
      changed(describedAt("bias"), 1 << 20),
      "the length of the name of a tensor",
    ],
    ["a cut off block", bytes.slice(0, -40), "a block is cut off; download or copy it again"],
    ["a cut off header", bytes.slice(0, 900), "the file ends after 900 bytes, within"],
    ["overlapping tensors", changed(axesAt("bias") + 16, 0), "overlap; download or make the file"],
    [
      "rows of half a block",
      changed(axesAt("blocks.3.q8_0.weight") + 4, 80),
      "do not divide its rows",
    ],
  ])("of %s is refused", async (_, damaged, message) => {
    await expect(open(damaged)).rejects.toThrow(FormatError);
    await expect(open(damaged)).rejects.toThrow(message);
  });

  it("of several files is refused", async () => {
    const part = async (told: GGUFMetadata) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of ggufChunks(told, [])) chunks.push(Uint8Array.from(chunk));
      return open(new Uint8Array(Buffer.concat(chunks)));
    };
    await expect(part({ "split.no": 0, "split.count": 3 })).rejects.toThrow(
      "is part 1 of 3 of a model; join them with llama-gguf-split --merge",
    );
    await expect(part({ "split.no": 0, "split.count": 1 })).resolves.toBeDefined();
  });

  it("never gives a file cut at any byte as a whole one", async () => {
    for (let length = 0; length < bytes.length; length += 97) {
      await expect(open(bytes.slice(0, length))).rejects.toThrow(FormatError);
    }
  });
});

describe("blocks as weights of a program", () => {
  const names = ["blocks.8.q4_k.weight", "blocks.9.q5_k.weight", "blocks.10.q6_k.weight"];

  async function multiplied(weights: Weights, name: string): Promise<number[]> {
    const { shape } = weights.entries.get(name)!;
    const [rows = 0, width = 0] = shape;
    const whole = parameter(name, shape);
    const [first, rest] = whole.split([1, rows - 1], 0);
    const x = input("x", [batch, width]);
    const graph = graphOf({
      whole: x.linear(whole),
      first: x.linear(first!),
      rest: x.linear(rest!),
    });
    const program = await nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
    const outputs = await program.run({ x: unit(width) });
    await program.dispose();
    const parts = [...toNumbers(outputs["first"]!), ...toNumbers(outputs["rest"]!)];
    expect(parts).toEqual(toNumbers(outputs["whole"]!));
    return parts;
  }
  /** Takes number 300 of each row. */
  const unit = (width: number) =>
    ndarray(
      "float32",
      [1, width],
      Array.from({ length: width }, (_, i) => Number(i === 300)),
    );
  const column = async (weights: Weights, name: string) => {
    const { data, shape } = await readFloat32(weights.entries.get(name)!);
    return Array.from({ length: shape[0]! }, (_, row) => data[row * shape[1]! + 300]!);
  };

  it.each<[string, number, () => Promise<Weights>]>([
    ["a file", 10, () => openSafetensorsFile(file)],
    ["memory", 10, () => open(bytes)],
    ["a file of uneven numbers", 2, () => openSafetensorsFile(path.join(uneven, "model.gguf"))],
  ])("from %s are computed with where they lie", async (_where, types, opened) => {
    const weights = await opened();
    const inBlocks = [...weights.entries.values()].filter(
      ({ blocks, shape }) => blocks && shape.length === 2,
    );
    expect(new Set(inBlocks.map(({ tag }) => tag)).size).toBe(types);
    const widths = new Set(inBlocks.map(({ shape }) => shape[1]!));
    const inputOf = new Map(
      [...widths].map((width) => [width, input(`x${width}`, [batch, width])]),
    );
    const outputs = inBlocks.map(({ name, shape }) => {
      return [name, inputOf.get(shape[1]!)!.linear(parameter(name, shape))] as const;
    });
    const stored = storedWeights(weights);
    const sources = inBlocks.map(({ name }) => stored(name)!);
    expect(sources.every((each) => isInPlace(each, () => true))).toBe(true);
    const program = await nodeBackend("cpu").compile(graphOf(Object.fromEntries(outputs)), {
      weights: stored,
      convertEachRun: true,
    });
    // Takes some numbers of each row, at the ends and inside of blocks.
    const places = [0, 1, 15, 16, 31, 32, 63, 64, 95];
    const rows = (width: number) =>
      places.flatMap((place) =>
        Array.from({ length: width }, (_, i) => Number(i === place || i === width - 1 - place)),
      );
    const results = await program.run(
      Object.fromEntries(
        [...widths].map((width) => [
          `x${width}`,
          ndarray("float32", [places.length, width], rows(width)),
        ]),
      ),
    );
    await program.dispose();
    for (const { name, shape } of inBlocks) {
      const [count = 0, width = 0] = shape;
      const { data } = await readFloat32(weights.entries.get(name)!);
      const at = (row: number, place: number) => data[row * width + place]!;
      const expected = places.flatMap((place) =>
        Array.from({ length: count }, (_, row) =>
          Math.fround(at(row, place) + at(row, width - 1 - place)),
        ),
      );
      expect([name, toNumbers(results[name]!)]).toEqual([name, expected]);
    }
    await weights.close();
  });

  it("of different types are joined, and others split and swapped", async () => {
    const weights = await openSafetensorsFile(file);
    const joined = joinRows(weights, (name) =>
      name === names[0] ? { name: "qkv", rest: names.slice(1) } : undefined,
    );
    const separate = (await Promise.all(names.map((name) => column(weights, name)))).flat();
    expect(await multiplied(joined, "qkv")).toEqual(separate);
    expect(await column(joined, "qkv")).toEqual(separate);

    const split = splitRows(weights, (name) => (name === names[0] ? ["a", "b", "c"] : undefined));
    const parts = (await Promise.all(["a", "b", "c"].map((name) => column(split, name)))).flat();
    expect(parts).toEqual(await column(weights, names[0]!));

    const swapped = swapHalves(weights, (layer) => layer === "blocks.20.q4_k");
    const [own, other] = [weights, swapped].map(({ entries }) =>
      entries.get("blocks.20.q4_k.weight")!,
    );
    const { data } = await readFloat32(own!);
    const half = data.length / 2;
    expect([...(await readFloat32(other!)).data]).toEqual([
      ...data.slice(half),
      ...data.slice(0, half),
    ]);
    await weights.close();
  });
});
