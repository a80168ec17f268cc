import path from "node:path";
import { describe, expect, it } from "vitest";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { fluxPresets } from "../../src/models/flux/config.ts";
import { flux } from "../../src/models/flux/flux.ts";
import { type ZImageConfig, zImagePresets } from "../../src/models/z-image/config.ts";
import { zImage } from "../../src/models/z-image/z-image.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { randomArray } from "../support/arrays.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

it.each([
  ["flux1_schnell", 61],
  ["flux2", 50],
  ["z_image", 120],
  ["flux_sampling", 126],
])("the recording %s of the original is reproduced", async (folder, outputs) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => backend),
  );
  expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
  expect(report.outputs).toHaveLength(outputs);
});

it("a recording whose positions are not the network's own is refused by name", async () => {
  const verified = withRecording(path.join(fixtures, "flux1_schnell"), (recording) => {
    const { io } = recording;
    const read = async (name: string): Promise<NdArray> => {
      const array = await io.read(name);
      if (name !== "in.case0.img_ids") return array;
      return ndarray("float32", array.shape, toNumbers(array).with(4, 9));
    };
    return verifyRecording({ ...recording, io: { ...io, read } }, async () => backend);
  });
  await expect(verified).rejects.toThrow('"in.case0.img_ids" differs at element 4');
});

it("a guidance scale is asked for and refused by what the FLUX.1 was distilled with", () => {
  const config = { ...fluxPresets["FLUX.1-dev"], hidden: 128, heads: 1, depth: 1, singleDepth: 1 };
  const trace = (guidance: boolean, given: boolean) =>
    flux(
      createParams(),
      {
        x: input("x", [batch, 16, 4, 4]),
        t: input("t", [batch]),
        context: input("context", [batch, 3, 4096]),
        pooled: input("pooled", [batch, 768]),
        guidance: given ? input("guidance", [batch]) : undefined,
      },
      { ...config, guidance },
    );
  expect(() => trace(true, false)).toThrow("give its scale as `guidance`");
  expect(() => trace(false, true)).toThrow("takes no guidance scale; leave `guidance` out");
});

describe("Z-Image", () => {
  const config: ZImageConfig = {
    ...zImagePresets["Z-Image-Turbo"],
    hidden: 24,
    heads: 1,
    depth: 1,
    refiners: 1,
    channels: 2,
    timeWidth: 8,
    axes: [8, 8, 8],
    condition: { kind: "text", width: 6, length: 96 },
  };
  const weights = (() => {
    const params = createParams();
    const x = input("x", [batch, 2, 8, 12]);
    zImage(params, { x, t: input("t", [batch]), y: input("y", [batch, 32, 6]) }, config);
    return initialize(params, randomKey(3));
  })();

  async function drawn(x: NdArray, y: NdArray, mask?: NdArray): Promise<number[]> {
    const leaf = (name: string, { shape, dtype }: NdArray) =>
      input(name, [batch, ...shape.slice(1)], dtype);
    const output = zImage(
      createParams(),
      {
        x: leaf("x", x),
        t: input("t", [batch]),
        y: leaf("y", y),
        mask: mask && leaf("mask", mask),
      },
      config,
    );
    const program = await backend.compile(graphOf({ output }), { weights: arrayWeights(weights) });
    const t = ndarray("float32", [x.shape[0]!], new Array<number>(x.shape[0]!).fill(300));
    const result = await program.run({ x, t, y, ...(mask && { mask }) });
    await program.dispose();
    return toNumbers(result["output"]!);
  }

  it("draws a padded text as it draws the text alone, whatever is behind it", async () => {
    // 24 patches, which are padded to 32, and texts of 5 and of 40 tokens, which are padded to 32 and to 64.
    const pictures = randomArray(1, "float32", [2, 2, 8, 12]) as NdArray<"float32">;
    const texts = randomArray(2, "float32", [2, 70, 6]) as NdArray<"float32">;
    const lengths = [5, 40];
    const mask = lengths.flatMap((length) =>
      Array.from({ length: 70 }, (_, i) => Number(i < length)),
    );
    const together = await drawn(pictures, texts, ndarray("bool", [2, 70], mask));
    const size = together.length / 2;
    for (const [row, length] of lengths.entries()) {
      const x = ndarray(
        "float32",
        [1, 2, 8, 12],
        pictures.data.slice(row * size, (row + 1) * size),
      );
      const own = texts.data.slice(row * 70 * 6, (row * 70 + length) * 6);
      const alone = await drawn(x, ndarray("float32", [1, length, 6], own));
      const part = together.slice(row * size, (row + 1) * size);
      expect(Math.max(...alone.map((value, i) => Math.abs(value - part[i]!)))).toBeLessThan(1e-5);
      expect(Math.max(...alone.map(Math.abs))).toBeGreaterThan(0.01);
    }
  });

  it("refuses pictures and texts that its positions do not cover", () => {
    const places = [34, 4, 6] as const;
    const trace = (height: number, length: number) =>
      zImage(
        createParams(),
        {
          x: input("x", [batch, 2, height, 12]),
          t: input("t", [batch]),
          y: input("y", [batch, length, 6]),
        },
        { ...config, places },
      );
    expect(() => trace(8, 32)).not.toThrow();
    expect(() => trace(10, 32)).toThrow("An image of 10×12 with 32 tokens of text");
    expect(() => trace(8, 33)).toThrow("with 64 tokens of text");
  });
});
